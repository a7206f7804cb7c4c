"""
Title: Forbidden actions
Author: The keras_dqn authors
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Taxi-v4 tells which actions have an effect; an agent with this mask takes no other.
Accelerator: None
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
parser.add_argument("--env-steps", type=int, default=50_000, help="budget (default 50000)")
parser.add_argument("--no-mask", action="store_true", help="all actions are allowed")
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)


class Counter(gym.Wrapper):
    """Counts the forbidden actions of all environments."""

    forbidden = 0

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self.mask = info["action_mask"]
        return observation, info

    def step(self, action):
        Counter.forbidden += not self.mask[action]
        *rest, info = self.env.step(action)
        self.mask = info["action_mask"]
        return (*rest, info)


action_mask = None if args.no_mask else "action_mask"
wrappers = [Counter] if args.no_mask else [Counter, keras_dqn.ActionMaskObservation]
env = gym.make_vec("Taxi-v4", num_envs=8, vectorization_mode="sync", wrappers=wrappers)
test_env = gym.make_vec("Taxi-v4", num_envs=10, vectorization_mode="sync", wrappers=wrappers[1:])
network = keras.Sequential([keras.Input((), dtype="int32"), keras.layers.Embedding(500, 64)])
network.add(keras.layers.Dense(128, "relu"))
network.add(keras.layers.Dense(6))
agent = keras_dqn.DQN(network, double=True, action_mask=action_mask)
updates = args.env_steps - 1_000
decay = keras.optimizers.schedules.PolynomialDecay(1e-3, updates, 0.0)
agent.compile(keras.optimizers.Adam(decay, clipnorm=10.0), steps_per_execution=64)

replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=args.seed)
schedule = keras_dqn.LinearSchedule(1.0, 0.05, 10_000)
collect = keras_dqn.CollectTransitions(
    env,
    replay,
    exploration=keras_dqn.EpsilonGreedy(schedule),
    max_env_steps=args.env_steps,
    seed=args.seed,
)
test = keras_dqn.EvaluatePolicy(test_env, episodes=100, seed=args.seed + 1_000)
agent.fit(
    replay.dataset(batch_size=64, gamma=0.99),
    epochs=-(-updates // 5_000),
    steps_per_epoch=5_000,
    callbacks=[collect, keras_dqn.SoftTargetUpdate(tau=0.005), test],
)
print(f"{Counter.forbidden} of {collect.env_steps} actions were forbidden")
print("return", test.evaluate(agent))
