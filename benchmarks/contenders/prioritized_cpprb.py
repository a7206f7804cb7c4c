"""cpprb's `PrioritizedReplayBuffer`. Argument: K."""

import cpprb
import numpy as np
import race
from prioritized_serve import ALPHA, BETA, ROWS, Updates


class Buffer:
    def __init__(self, data, capacity):
        observation = {"shape": data.shape, "dtype": data.dtype}
        fields = {"obs": observation, "act": {"dtype": np.int32}, "rew": {}, "done": {}}
        fields["next_obs"] = observation
        self.replay = cpprb.PrioritizedReplayBuffer(capacity, fields, alpha=ALPHA)

    def add(self, observation, action, reward, terminated, next_observation):
        self.replay.add(
            obs=observation, act=action, rew=reward, done=terminated, next_obs=next_observation
        )

    def update(self, td_errors):
        for td_error in td_errors:
            batch = self.replay.sample(ROWS, BETA)
            self.replay.update_priorities(batch["indexes"], td_error.ravel())


race.serve(Updates(Buffer))
