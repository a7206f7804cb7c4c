"""
Title: A replay buffer for a plain Keras model
Author: The keras_dqn authors
Date created: 2026/11/23
Last modified: 2026/11/24
Description: A replay buffer feeds a plain Keras model that predicts CartPole's next step.
Accelerator: None
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)


def play(env_steps, seed):
    """Returns a buffer of what random actions lead to."""
    env = gym.make("CartPole-v1")
    env.action_space.seed(seed)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=2 * env_steps, seed=seed)
    observation, _ = env.reset(seed=seed)
    for _ in range(env_steps):
        action = env.action_space.sample()
        next_observation, reward, terminated, truncated, _ = env.step(action)
        replay.add(observation, action, reward, terminated, truncated, next_observation)
        observation = env.reset()[0] if terminated or truncated else next_observation
    return replay


@tf.autograph.experimental.do_not_convert  # otherwise AutoGraph warns on Python 3.13
def change(observation, transition, weight):
    """Returns the batch for `fit`: inputs, targets and sample weights."""
    inputs = observation, tf.one_hot(transition["action"], 2)
    return inputs, transition["next_observation"] - observation, weight


observation, action = keras.Input((4,)), keras.Input((2,))
x = keras.layers.Concatenate()([observation, action])
x = keras.layers.Dense(64, "tanh")(x)
x = keras.layers.Dense(64, "tanh")(x)
model = keras.Model((observation, action), keras.layers.Dense(4)(x))
model.compile("adam", "mse", steps_per_execution=50)

model.fit(
    play(10_000, args.seed).dataset(256).map(change),
    epochs=args.epochs,
    steps_per_epoch=500,
    shuffle=False,  # with its default and a dataset, Keras gives a warning
    verbose=2,
)

unseen = play(2_000, args.seed + 1).dataset(1_000).map(change)
inputs, target, _ = next(iter(unseen))
error = np.mean((model(inputs) - target) ** 2)
print(f"mean squared error on unseen steps: {error:.1e}; of predicting no change: ", end="")
print(f"{np.mean(target**2):.1e}")
