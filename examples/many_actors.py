"""
Title: The quick start on two workers
Author: The keras_dqn authors
Date created: 2026/11/28
Last modified: 2026/11/28
Description: Two processes of Ray collect on CartPole, and `model.fit` trains in this one.
Accelerator: None
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras

import keras_dqn
from keras_dqn.integrations.ray import RayCollectTransitions

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
parser.add_argument("--env-steps", type=int, default=50_000, help="budget (default 50000)")
parser.add_argument("--workers", type=int, default=2, help="processes that collect (default 2)")
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)


def make_env():
    return gym.make_vec("CartPole-v1", num_envs=4, vectorization_mode="sync")


env = make_env()
network = keras.Sequential(
    [
        keras.Input(env.single_observation_space.shape),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(int(env.single_action_space.n)),
    ]
)
warmup_steps, epoch_updates = 1_000, 2_000
updates = args.env_steps - warmup_steps  # one for each environment step after the warm-up
learning_rate = keras.optimizers.schedules.PolynomialDecay(1e-3, updates, 0.0)

agent = keras_dqn.DQN(network, double=True)
agent.compile(keras.optimizers.Adam(learning_rate, clipnorm=10.0), steps_per_execution=64)
replay = keras_dqn.ReplayBuffer.from_env(
    env, capacity=50_000, num_envs=args.workers * env.num_envs, seed=args.seed
)
collect = RayCollectTransitions(
    make_env,
    replay,
    num_workers=args.workers,
    exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000)),
    warmup_steps=warmup_steps,
    max_env_steps=args.env_steps,
    seed=args.seed,
)
test_env = gym.make_vec("CartPole-v1", num_envs=10, vectorization_mode="sync")
agent.fit(
    replay.dataset(batch_size=64, gamma=0.99, n_step=5),
    epochs=-(-updates // epoch_updates),
    steps_per_epoch=epoch_updates,
    callbacks=[
        collect,
        keras_dqn.SoftTargetUpdate(tau=0.005),
        keras_dqn.EvaluatePolicy(test_env, episodes=10, seed=args.seed + 1_000),
    ],
)
test = keras_dqn.EvaluatePolicy(test_env, episodes=20, seed=args.seed + 2_000)
print("return", test.evaluate(agent))
