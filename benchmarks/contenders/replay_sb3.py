"""Stable-Baselines3's `ReplayBuffer`, n steps by its `NStepReplayBuffer`.

`--optimize-memory` stores each observation once (`optimize_memory_usage`).
"""

import sys

import gymnasium as gym
import race
import replay_serve
import torch
from replay_data import CAPACITY, GAMMA, NUM_ACTIONS
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer

torch.set_num_threads(1)
OPTIONS = (
    {"optimize_memory_usage": True, "handle_timeout_termination": False}
    if "--optimize-memory" in sys.argv
    else {}
)


class Buffer:
    def __init__(self, data, envs, n_step, capacity=CAPACITY):
        space = gym.spaces.Box(data.low, data.high, data.shape, data.dtype)
        shared = (capacity, space, gym.spaces.Discrete(NUM_ACTIONS), "cpu", envs)
        if n_step > 1:
            self.replay = NStepReplayBuffer(*shared, n_steps=n_step, gamma=GAMMA, **OPTIONS)
        else:
            self.replay = ReplayBuffer(*shared, **OPTIONS)
        self.infos = [{}] * envs
        self.envs = envs

    def add(self, observation, action, reward, terminated, next_observation):
        self.replay.add(observation, next_observation, action, reward, terminated, self.infos)

    def sample(self, rows):
        self.replay.sample(rows)

    def __len__(self):
        return self.replay.size() * self.envs


replay_serve.serve(Buffer, race)
