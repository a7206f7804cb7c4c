"""Returns and lengths of episodes, summed while environments are stepped."""

from typing import Any, NamedTuple

import numpy as np

from keras_dqn.acting.environment_stepper import Step


class EndedEpisodes(NamedTuple):
    """Sums over episodes.

    Attributes:
        number: Int, episodes.
        sum_of_returns: Float.
        sum_of_lengths: Int, environment steps.
    """

    number: int
    sum_of_returns: float
    sum_of_lengths: int


class EpisodeStatistics:
    """Sums rewards per environment and averages over the episodes that ended in the epoch.

    The return that Gymnasium's `RecordEpisodeStatistics` recorded for an episode is used instead of
    the sum, which may be one of clipped rewards. From the first record on, a termination without
    one, such as a lost life, ends no episode here.

    Args:
        num_envs: Int, environments, E.

    Attributes:
        means: Dict of `episode_return` and `episode_length` (environment steps). It keeps its last
            values until an episode ends in the epoch, and is empty before the first one ends.
    """

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self.means: dict[str, float] = {}
        self._has_records = False
        self.start_epoch()

    def start_epoch(self) -> None:
        """Starts new means; running episodes continue."""
        self._num_ended = 0
        self._sum_of_returns = 0.0
        self._sum_of_lengths = 0

    def drop_running(self) -> None:
        """Forgets the running episodes."""
        self._returns[:] = self._lengths[:] = 0

    def add(self, step: Step) -> int:
        """Adds a step of all environments; returns the number of episodes that ended with it."""
        self._returns += step.reward * step.stepped
        self._lengths += step.stepped
        ended = (step.terminated | step.truncated) & step.stepped
        has_record = np.zeros_like(ended)
        if step.recorded is not None:
            has_record = ~np.isnan(step.recorded)
            self._has_records = True
            self._returns = np.where(has_record, step.recorded, self._returns)
        if self._has_records:
            ended &= has_record | step.truncated
        num_ended = int(np.count_nonzero(ended))
        if not num_ended:
            return 0
        returns, lengths = self._returns[ended], self._lengths[ended]
        self._returns[ended] = self._lengths[ended] = 0
        self.add_ended(EndedEpisodes(num_ended, float(returns.sum()), int(lengths.sum())))
        return num_ended

    def add_ended(self, ended: EndedEpisodes) -> None:
        """Adds episodes that have ended, here or in another process."""
        if not ended.number:
            return
        self._num_ended += ended.number
        self._sum_of_returns += ended.sum_of_returns
        self._sum_of_lengths += ended.sum_of_lengths
        self.means = {
            "episode_return": self._sum_of_returns / self._num_ended,
            "episode_length": self._sum_of_lengths / self._num_ended,
        }

    @property
    def ended(self) -> EndedEpisodes:
        """The episodes that ended in the epoch."""
        return EndedEpisodes(self._num_ended, self._sum_of_returns, self._sum_of_lengths)

    def get_state(self) -> dict[str, Any]:
        """Returns the sums of running episodes and of episodes that ended in the epoch."""
        return {
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "means": dict(self.means),
            "has_records": self._has_records,
            "num_ended": self._num_ended,
            "sum_of_returns": self._sum_of_returns,
            "sum_of_lengths": self._sum_of_lengths,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
        self._returns = np.array(state["returns"], float)
        self._lengths = np.array(state["lengths"], np.int64)
        self.means = dict(state["means"])
        self._has_records = state.get("has_records", False)  # older states have none
        self._num_ended = state["num_ended"]
        self._sum_of_returns = state["sum_of_returns"]
        self._sum_of_lengths = state["sum_of_lengths"]
