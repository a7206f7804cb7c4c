"""
Title: Replay buffers of TF-Agents
Author: The keras_dqn authors
Date created: 2026/11/22
Last modified: 2026/11/24
Description: A DQN learns CartPole from a TF-Agents replay buffer, and from trajectories.
Accelerator: None
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras

import keras_dqn
from keras_dqn.integrations.tf_agents import TFAgentsReplayBuffer, transitions_from_trajectories

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--epochs", type=int, default=10, help="of 2048 updates (default 10)")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)

env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
network = keras.Sequential(
    [
        keras.Input(env.single_observation_space.shape),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(int(env.single_action_space.n)),
    ]
)
agent = keras_dqn.DQN(network, double=True)
agent.compile(keras.optimizers.Adam(1e-3, clipnorm=10.0), steps_per_execution=64)
replay = TFAgentsReplayBuffer.from_env(env, capacity=50_000)
exploration = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000))
evaluate = keras_dqn.EvaluatePolicy(
    gym.make_vec("CartPole-v1", num_envs=10, vectorization_mode="sync"), seed=args.seed + 1_000
)
target_update = keras_dqn.SoftTargetUpdate(tau=0.005)
agent.fit(
    replay.dataset(batch_size=64, gamma=0.99, n_step=5),
    epochs=args.epochs,
    steps_per_epoch=2_048,
    callbacks=[
        keras_dqn.CollectTransitions(env, replay, exploration=exploration, seed=args.seed),
        target_update,
        evaluate,
    ],
)
print("return", evaluate.evaluate(agent))

# Data collected by TF-Agents' own drivers can be used without our buffer or collector.
trajectories = replay.replay_buffer.as_dataset(sample_batch_size=64, num_steps=6)
agent.fit(
    transitions_from_trajectories(trajectories, gamma=0.99),
    steps_per_epoch=256,
    callbacks=[target_update],
)
print("return after 256 updates from the trajectories", evaluate.evaluate(agent))
