"""Counts whole episodes in one or several environments and keeps their returns."""

import numpy as np

from keras_dqn.acting.environment_stepper import Step


class Episodes:
    """Takes the steps of environments and keeps the episodes that count.

    Each environment plays its share, so that short episodes are not preferred. An episode that
    reaches the limit is cut: it counts as it is. Its environment counts again when its next episode
    begins.

    Args:
        num_envs: Int, environments, E.
        num_episodes: Int, episodes to play.
        max_steps: Int or None, environment steps after which an episode is cut.

    Attributes:
        returns: List of floats, the sum of rewards of each episode.
        lengths: List of ints, the environment steps of each episode.
    """

    def __init__(self, num_envs: int, num_episodes: int, max_steps: int | None) -> None:
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self._max_steps = max_steps
        self._num_episodes = num_episodes
        self._shares = (num_episodes + np.arange(num_envs)[::-1]) // num_envs
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, np.int64)
        self._cut = np.zeros(num_envs, bool)

    @property
    def done(self) -> bool:
        """Whether all episodes have been played."""
        return len(self.returns) == self._num_episodes

    @property
    def wait_for_reset(self) -> bool:
        """Whether a reset is needed, because no environment is playing an episode that counts."""
        return not self.done and bool((self._cut | (self._shares == 0)).all())

    def start_anew(self) -> None:
        """Starts new episodes, after all environments were reset."""
        self._return[:] = self._length[:] = self._cut[:] = 0

    def add(self, step: Step) -> list[int]:
        """Adds a step of all environments; returns those in which an episode that counts ended."""
        self._return += step.reward * step.stepped
        self._length += step.stepped
        ended = (step.terminated | step.truncated) & step.stepped
        over = ended.copy()
        if self._max_steps is not None:
            over |= self._length >= self._max_steps
        counted = np.flatnonzero(over & ~self._cut & (self._shares > 0)).tolist()
        for e in counted:
            self.returns.append(float(self._return[e]))
            self.lengths.append(int(self._length[e]))
            self._shares[e] -= 1
        self._cut = (self._cut | over) & ~ended
        self._return[ended] = self._length[ended] = 0
        return counted
