"""Tianshou's `PrioritizedVectorReplayBuffer`. Argument: K."""

import numpy as np
import race
from prioritized_serve import ALPHA, BETA, ENVS, ROWS, Updates
from tianshou.data import Batch, PrioritizedVectorReplayBuffer


class Buffer:
    def __init__(self, data, capacity):
        self.replay = PrioritizedVectorReplayBuffer(capacity, ENVS, alpha=ALPHA, beta=BETA)
        self.no = np.zeros(ENVS, bool)

    def add(self, observation, action, reward, terminated, next_observation):
        batch = Batch(
            obs=observation,
            act=action,
            rew=reward,
            terminated=terminated,
            truncated=self.no,
            obs_next=next_observation,
        )
        self.replay.add(batch)

    def update(self, td_errors):
        for td_error in td_errors:
            _, indices = self.replay.sample(ROWS)
            self.replay.update_weight(indices, td_error.ravel())


race.serve(Updates(Buffer))
