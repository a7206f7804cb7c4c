"""
Title: Your own loop over `train_on_batch`
Author: The keras_dqn authors
Date created: 2026/11/23
Last modified: 2026/11/24
Description: A plain Keras network learns CartPole in your own loop.
Accelerator: None
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import numpy as np

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--env-steps", type=int, default=12_000)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)
rng = np.random.default_rng(args.seed)

inputs = keras.Input((4,))
x = keras.layers.Dense(128, "relu")(inputs)
x = keras.layers.Dense(128, "relu")(x)
network = keras.Model(inputs, keras.layers.Dense(2)(x))
network.compile(keras.optimizers.Adam(1e-3), "huber")
target_network = keras.models.clone_model(network)
keras_dqn.soft_update(network, target_network, tau=1.0)

env = gym.make("CartPole-v1")
replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=args.seed)
test = keras_dqn.EvaluatePolicy(gym.make("CartPole-v1"), episodes=10, seed=args.seed + 1_000)

observation, _ = env.reset(seed=args.seed)
for step in range(1, args.env_steps + 1):
    if rng.random() < max(0.05, 1.0 - step / 5_000):
        action = rng.integers(2)
    else:
        action = network.predict_on_batch(observation[None])[0].argmax()
    next_observation, reward, terminated, truncated, _ = env.step(action)
    replay.add(observation, action, reward, terminated, truncated, next_observation)
    observation = env.reset()[0] if terminated or truncated else next_observation

    if step >= 1_000:
        x, transition, weight = replay.sample(64, gamma=0.99, n_step=5)
        next_values = target_network.predict_on_batch(transition["next_observation"])
        y = network.predict_on_batch(x)
        y[np.arange(64), transition["action"]] = transition["reward"] + transition[
            "discount"
        ] * next_values.max(axis=-1)
        network.train_on_batch(x, y, weight)
        keras_dqn.soft_update(network, target_network, tau=0.005)
    if step % 2_000 == 0:
        print(f"{step:,} steps: greedy return {test.evaluate(network):.0f}")

print(f"greedy return {test.evaluate(network):.1f} after {args.env_steps:,} steps")
