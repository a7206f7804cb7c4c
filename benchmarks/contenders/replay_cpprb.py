"""cpprb's `ReplayBuffer`; n steps are summed when they are added, for one environment only.

`--next-of` stores each observation once; `--stack-compress` also each frame of a stack.
"""

import sys

import cpprb
import numpy as np
import race
import replay_serve
from replay_data import CAPACITY, GAMMA

OPTIONS = {}
if "--next-of" in sys.argv:
    OPTIONS["next_of"] = "obs"
if "--stack-compress" in sys.argv:
    OPTIONS["stack_compress"] = "obs"


class Buffer:
    def __init__(self, data, envs, n_step, capacity=CAPACITY):
        if n_step > 1 and envs > 1:
            raise ValueError("cpprb sums n steps of one environment only")
        observation = {"shape": data.shape, "dtype": data.dtype}
        fields = {"obs": observation, "act": {"dtype": np.int32}, "rew": {}, "done": {}}
        options = dict(OPTIONS)
        if "next_of" not in options:
            fields["next_obs"] = observation
        if n_step > 1:
            options["Nstep"] = {"size": n_step, "gamma": GAMMA, "rew": "rew", "next": "next_obs"}
        self.replay = cpprb.ReplayBuffer(capacity, fields, **options)

    def add(self, observation, action, reward, terminated, next_observation):
        self.replay.add(
            obs=observation, act=action, rew=reward, done=terminated, next_obs=next_observation
        )
        if terminated[0]:
            self.replay.on_episode_end()

    def sample(self, rows):
        self.replay.sample(rows)

    def __len__(self):
        return self.replay.get_stored_size()


replay_serve.serve(Buffer, race)
