"""
Title: Rainbow from its parts
Author: The keras_dqn authors
Date created: 2026/11/24
Last modified: 2026/11/24
Description: The six parts of Rainbow learn CartPole together; a flag leaves each of them out.
Accelerator: None
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras

import keras_dqn

PARTS = ["distribution", "double", "dueling", "noise", "priorities", "n-step"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
parser.add_argument("--env", default="CartPole-v1", help="Gymnasium name, observations in a vector")
parser.add_argument("--env-steps", type=int, default=50_000, help="budget (default 50000)")
parser.add_argument("--v-min", type=float, default=0.0, help="smallest return (default 0)")
parser.add_argument("--v-max", type=float, default=100.0, help="largest return (default 100)")
for part in PARTS:
    parser.add_argument(f"--no-{part}", action="append_const", dest="without", const=part)
args = parser.parse_args()
distribution, double, dueling, noise, priorities, n_step = (
    part not in (args.without or []) for part in PARTS
)
keras.utils.set_random_seed(args.seed)

env = gym.make_vec(args.env, num_envs=8, vectorization_mode="sync")
num_actions = int(env.single_action_space.n)
num_outputs = 51 if distribution else 1  # for each action
torso = keras_dqn.networks.mlp(env.single_observation_space, None, hidden_units=(128,))
if dueling:
    head = [keras_dqn.layers.DuelingHead(num_actions, num_outputs, hidden_units=128, noisy=noise)]
else:
    dense = keras_dqn.layers.NoisyDense if noise else keras.layers.Dense
    head = [dense(128, activation="relu"), dense(num_actions * num_outputs)]
    if distribution:
        head.append(keras.layers.Reshape((num_actions, num_outputs)))
network = keras.Sequential([torso, *head])
if distribution:
    agent = keras_dqn.CategoricalDQN(network, v_min=args.v_min, v_max=args.v_max, double=double)
else:
    agent = keras_dqn.DQN(network, double=double)

warmup_steps, epoch_updates = 1_000, 2_000
updates = args.env_steps - warmup_steps  # one for each environment step after the warm-up
learning_rate = keras.optimizers.schedules.PolynomialDecay(1e-3, updates, 0.0)
adam = keras.optimizers.Adam(learning_rate, epsilon=1.5e-4, clipnorm=10.0)
agent.compile(adam, steps_per_execution=64)
if priorities:
    beta = keras_dqn.LinearSchedule(0.4, 1.0, updates)
    replay = keras_dqn.PrioritizedReplayBuffer.from_env(
        env, capacity=50_000, alpha=0.5, beta=beta, seed=args.seed
    )
else:
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=args.seed)
epsilon = keras_dqn.LinearSchedule(1.0, 0.05, 10_000)
exploration = keras_dqn.NoisyGreedy() if noise else keras_dqn.EpsilonGreedy(epsilon)
collect = keras_dqn.CollectTransitions(
    env,
    replay,
    exploration=exploration,
    warmup_steps=warmup_steps,
    max_env_steps=args.env_steps,
    seed=args.seed,
)
tests = gym.make_vec(args.env, num_envs=10, vectorization_mode="sync")
agent.fit(
    replay.dataset(batch_size=64, gamma=0.99, n_step=3 if n_step else 1),
    epochs=-(-updates // epoch_updates),
    steps_per_epoch=epoch_updates,
    callbacks=[
        collect,
        keras_dqn.SoftTargetUpdate(tau=0.01),
        keras_dqn.EvaluatePolicy(tests, episodes=10, seed=args.seed + 1_000),
    ],
)
test = keras_dqn.EvaluatePolicy(tests, episodes=20, seed=args.seed + 2_000)
print("return", test.evaluate(agent))
