"""Rings of rows on the host, one for each environment: what a replay buffer stores, and where."""

import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay.n_step import BOUNDARY, TRUNCATED, Windows, windows
from keras_dqn.replay.observation_layout import Leaf


class Rings:
    """Rows of transitions in one ring per environment; each observation is stored once.

    A row holds an observation and the action, reward and end of the step taken from it; the next
    observation is in the row that follows. The final observation of an episode is a boundary row.

    Rows are counted from the first one ever written; row r of environment e lies in slot
    `e * ring_size + r % ring_size` of the arrays. The head is the row to come: its slot holds the
    last next observation while an episode runs, and is the one slot that holds no row.

    Args:
        num_envs: Int, E.
        num_rows: Int, rows that each ring holds; then the oldest are overwritten.
        leaves: The arrays of an observation.
    """

    def __init__(self, num_envs: int, num_rows: int, leaves: list[Leaf]) -> None:
        self.num_rows = num_rows
        self.ring_size = num_rows + 1
        slots = num_envs * self.ring_size
        self.observations = [np.zeros((slots, *leaf.shape), leaf.dtype) for leaf in leaves]
        self.actions = np.zeros(slots, np.int32)
        self.rewards = np.zeros(slots, np.float32)
        self.flags = np.zeros(slots, np.uint8)
        self.num_transitions = 0
        # Python numbers: one row at a time they are several times faster than NumPy's.
        self._heads = [0] * num_envs
        self._runs = [False] * num_envs

    # Writing

    def append(
        self,
        env: int,
        observations: list[NDArray],
        action: int,
        reward: float,
        end: int,
        next_observations: list[NDArray],
    ) -> None:
        """Stores one step of an environment.

        Args:
            env: Int, which environment, e.
            observations: One array `[E, ...]` a leaf, of which `[e]` is stored.
            action: Int, 0-based.
            reward: Float.
            end: 0, or TERMINATED, TRUNCATED or both.
            next_observations: As `observations`.
        """
        slot = self._slot(env)
        runs = self._runs[env]
        if not (runs and self._holds(slot, env, observations)):
            if runs:
                self.flags[self._slot(env, -1)] |= TRUNCATED
                slot = self._advance(env, slot, BOUNDARY)
            self._write_observation(slot, env, observations)
        self.actions[slot] = action
        self.rewards[slot] = reward
        self.num_transitions += 1
        slot = self._advance(env, slot, end)
        self._write_observation(slot, env, next_observations)
        self._runs[env] = not end
        if end:
            self._advance(env, slot, BOUNDARY)

    def _slot(self, env: int, rows_from_head: int = 0) -> int:
        return env * self.ring_size + (self._heads[env] + rows_from_head) % self.ring_size

    def _holds(self, slot: int, env: int, observations: list[NDArray]) -> bool:
        for i, leaf in enumerate(observations):
            if self.observations[i][slot].tobytes() != leaf[env].tobytes():
                return False
        return True

    def _write_observation(self, slot: int, env: int, observations: list[NDArray]) -> None:
        for i, leaf in enumerate(observations):
            self.observations[i][slot] = leaf[env]

    def _advance(self, env: int, slot: int, flags: int) -> int:
        """Takes the row at the head into the ring; the oldest row's slot becomes the new head's."""
        self.flags[slot] = flags
        head = self._heads[env] = self._heads[env] + 1
        slot = env * self.ring_size + head % self.ring_size
        if head > self.num_rows and self.flags[slot] < BOUNDARY:
            self.num_transitions -= 1
        return slot

    # Reading

    def heads(self) -> NDArray[np.int64]:
        """Returns the row after the last complete step of each environment, `[E]`."""
        return np.array(self._heads, np.int64)

    def stored(self) -> NDArray[np.int64]:
        """Returns how many rows each ring holds, `[E]`; they are those before its head."""
        return np.minimum(self.heads(), self.num_rows)

    def slots(self, env: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns where rows `[B]` of environments `[B]` lie in the arrays."""
        return env * self.ring_size + row % self.ring_size

    def windows(
        self, env: NDArray[np.int64], row: NDArray[np.int64], gamma: float, n_step: int
    ) -> Windows:
        """Returns what follows rows `[B]` of environments `[B]`; complete only if stored."""
        heads = self.heads()
        window = windows(
            self.flags,
            self.rewards,
            env * self.ring_size,
            row,
            heads[env],
            self.ring_size,
            gamma,
            n_step,
        )
        first = np.maximum(heads - self.num_rows, 0)
        window.complete[row < first[env]] = False
        return window
