"""
Title: The tutorials' own loop
Author: The keras_dqn authors
Date created: 2026/11/23
Last modified: 2026/11/24
Description: Your own loop learns CartPole, without `fit` and with prioritized replay.
Accelerator: None
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # more threads make a small network slower
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import gymnasium as gym
import keras
import numpy as np

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--env-steps", type=int, default=10_000)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)
rng = np.random.default_rng(args.seed)

env = gym.make("CartPole-v1")
network = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(2),
    ]
)
agent = keras_dqn.DQN(network, double=True)
agent.compile(keras.optimizers.Adam(1e-3))
replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, capacity=50_000, seed=args.seed)
epsilon = keras_dqn.ExponentialSchedule(1.0, 0.99, 0.05, unit="episodes")
test = keras_dqn.EvaluatePolicy(gym.make("CartPole-v1"), episodes=10, seed=args.seed + 1_000)

episodes, begin = 0, time.perf_counter()
observation, _ = env.reset(seed=args.seed)
for step in range(1, args.env_steps + 1):
    random = rng.random() < epsilon(episodes)
    action = rng.integers(2) if random else agent.act(observation)
    next_observation, reward, terminated, truncated, _ = env.step(action)
    replay.add(observation, action, reward, terminated, truncated, next_observation)
    observation = next_observation
    if terminated or truncated:
        observation, _ = env.reset()
        episodes += 1

    if step >= 1_000:
        batch = replay.sample(64, gamma=0.99, n_step=5)
        logs = agent.train_on_batch(*batch, return_dict=True)
        replay.update_priorities(batch[1]["key"], logs["td_error"])
        keras_dqn.soft_update(agent.network, agent.target_network, tau=0.03)
    if step % 2_000 == 0:
        print(f"{step:,} steps, {episodes} episodes: greedy return {test.evaluate(agent):.0f}")

rate = args.env_steps / (time.perf_counter() - begin)
print(f"greedy return {test.evaluate(agent):.1f}, {rate:.0f} environment steps a second")
