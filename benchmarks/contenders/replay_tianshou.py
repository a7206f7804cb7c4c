"""Tianshou's `ReplayBuffer`, for memory alone.

`--ignore-obs-next` stores each observation once; `--save-only-last-obs` also each frame of a stack.
"""

import sys

import numpy as np
import race
import replay_serve
from replay_data import CAPACITY
from tianshou.data import Batch, ReplayBuffer

OPTIONS = {}
if "--ignore-obs-next" in sys.argv:
    OPTIONS["ignore_obs_next"] = True
if "--save-only-last-obs" in sys.argv:
    OPTIONS.update(stack_num=4, save_only_last_obs=True)


class Buffer:
    def __init__(self, data, envs, n_step, capacity=CAPACITY):
        if envs > 1 or n_step > 1:
            raise ValueError("this stores single steps of one environment")
        self.replay = ReplayBuffer(capacity, **OPTIONS)

    def add(self, observation, action, reward, terminated, next_observation):
        batch = Batch(
            obs=observation[0],
            act=action[0],
            rew=reward[0],
            terminated=terminated[0],
            truncated=np.False_,
            obs_next=next_observation[0],
        )
        self.replay.add(batch)

    def sample(self, rows):
        self.replay.sample(rows)

    def __len__(self):
        return len(self.replay)


replay_serve.serve(Buffer, race)
