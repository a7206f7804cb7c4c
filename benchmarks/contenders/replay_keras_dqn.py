"""keras_dqn's `ReplayBuffer`."""

import gymnasium as gym
import race
import replay_serve
from replay_data import CAPACITY, GAMMA, NUM_ACTIONS

import keras_dqn


class Buffer:
    def __init__(self, data, envs, n_step, capacity=CAPACITY):
        self.n_step = n_step
        space = gym.spaces.Box(data.low, data.high, data.shape, data.dtype)
        self.replay = keras_dqn.ReplayBuffer(
            capacity, space, gym.spaces.Discrete(NUM_ACTIONS), num_envs=envs, seed=0
        )
        self.no = [False] * envs

    def add(self, observation, action, reward, terminated, next_observation):
        self.replay.add(observation, action, reward, terminated, self.no, next_observation)

    def sample(self, rows):
        self.replay.sample(rows, gamma=GAMMA, n_step=self.n_step)

    def __len__(self):
        return len(self.replay)


replay_serve.serve(Buffer, race)
