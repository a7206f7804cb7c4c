"""Draws rows of a replay buffer uniformly; each row is the start of a complete window."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay.n_step import Windows
from keras_dqn.replay.ring_arrays import RingArrays, rows_before

_MAX_REDRAWS = 64

Rows = tuple[NDArray[np.int64], NDArray[np.int64]]


class UniformSampler:
    """Draws rows uniformly, with replacement.

    Args:
        rings: The `RingArrays` with the rows.
        rng: The NumPy generator that draws.
    """

    def __init__(self, rings: RingArrays, rng: np.random.Generator) -> None:
        self.rings = rings
        self.rng = rng

    def draw(
        self, num_batches: int, batch_size: int, gamma: float, n_step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Windows]:
        """Returns the environments and rows `[K * B]` of starts, and their windows.

        Raises:
            RuntimeError: If no complete window is stored yet.
        """
        if not self.rings.num_transitions:
            raise RuntimeError(
                "The replay buffer is empty: `add` transitions before drawing some, or give "
                "`CollectTransitions` a `warmup_steps` above 0."
            )
        env, row = self._rows(num_batches * batch_size, batch_size)
        window = self.rings.windows(env, row, gamma, n_step)
        for _ in range(_MAX_REDRAWS):
            missing = np.flatnonzero(~window.complete)
            if not len(missing):
                return env, row, window
            env[missing], row[missing] = self._rows(len(missing))
            redrawn = self.rings.windows(env[missing], row[missing], gamma, n_step)
            for values, new_values in zip(window, redrawn, strict=True):
                values[missing] = new_values
        env, row = self._rows_among_complete(num_batches * batch_size, n_step)
        return env, row, self.rings.windows(env, row, gamma, n_step)

    def weights(self, slots: NDArray[np.int64]) -> NDArray[Any]:
        """Returns the importance weights `[K, B]` of the starts in slots `[K, B]`."""
        return np.ones(slots.shape, np.float32)

    def _rows(self, count: int, batch_size: int | None = None) -> Rows:
        """Draws `count` rows: full batches if `batch_size` is given, else replacements."""
        # All rings count as if they were as long as the longest. A row that a shorter ring does not
        # hold has no complete window, so it is drawn again.
        heads = self.rings.heads()
        longest = int(self.rings.stored().max())
        env, age = np.divmod(self.rng.integers(len(heads) * longest, size=count), longest)
        return env, heads[env] - 1 - age

    def _rows_among_complete(self, count: int, n_step: int) -> Rows:
        """Draws from the list of all complete windows, for the rare buffer with few of them."""
        env, row = rows_before(self.rings.heads(), self.rings.stored())
        complete = self.rings.windows(env, row, 1.0, n_step).complete
        env, row = env[complete], row[complete]
        if not len(row):
            raise RuntimeError(
                f"The replay buffer holds no complete window of {n_step} steps yet: add more "
                "transitions or lower `n_step`. Received: "
                f"n_step={n_step}, stored={self.rings.num_transitions}"
            )
        chosen = self._choose(self.rings.slots(env, row), count)
        return env[chosen], row[chosen]

    def _choose(self, slots: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Draws `count` positions in `slots`."""
        return self.rng.integers(len(slots), size=count)
