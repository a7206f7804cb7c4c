"""The loop of examples/own_loop.py, one environment step at a time, without its evaluations."""

import argparse

import gymnasium as gym
import keras
import numpy as np
import race

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--units", type=int, default=128, help="of both layers (default 128)")
args = parser.parse_args()
rng = np.random.default_rng(0)

env = gym.make("CartPole-v1")
network = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(args.units, "relu"),
        keras.layers.Dense(args.units, "relu"),
        keras.layers.Dense(2),
    ]
)
agent = keras_dqn.DQN(network, double=True)
agent.compile(keras.optimizers.Adam(1e-3))
replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, capacity=50_000, seed=0)
observation, _ = env.reset(seed=0)
steps = 0


def work(request):
    """Takes the steps that are asked for, each with an update after the first 1,000."""
    global observation, steps
    for _ in range(request["count"]):
        steps += 1
        epsilon = max(0.05, 1.0 - steps / 10_000)
        action = rng.integers(2) if rng.random() < epsilon else agent.act(observation)
        next_observation, reward, terminated, truncated, _ = env.step(action)
        replay.add(observation, action, reward, terminated, truncated, next_observation)
        observation = next_observation
        if terminated or truncated:
            observation, _ = env.reset()
        if steps >= 1_000:
            batch = replay.sample(64, gamma=0.99, n_step=5)
            logs = agent.train_on_batch(*batch, return_dict=True)
            replay.update_priorities(batch[1]["key"], logs["td_error"])
            keras_dqn.soft_update(agent.network, agent.target_network, tau=0.03)
    return request["count"]


work({"count": 1_100})
race.serve(work)
