"""Arrays of rows on the host, one ring for each environment, and how they are read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay.n_step import BOUNDARY, Windows, windows
from keras_dqn.replay.storage import MemmapDirectory, Memory
from keras_dqn.spaces.observation_spec import Leaf


class RingArrays:
    """Rows of transitions in one ring per environment; each observation is stored once.

    A row holds an observation and the action, reward and end of the step taken from it. The next
    row holds the next observation. The final observation of an episode is a boundary row. If
    observations are stacks of frames, a row holds the newest frame, and the rows before it hold the
    others. The older frames of an episode's first observation are boundary rows too.

    Rows are counted from the first one ever written. Row r of environment e is in slot
    `e * ring_size + r % ring_size` of the arrays. The head is the next row to be written. Its slot
    is the only one without a row; while an episode runs, it holds the last next observation.

    Args:
        num_envs: Int, environments, E.
        num_rows: Int, rows that each ring holds. New rows overwrite the oldest.
        leaves: List of `Leaf`, the arrays of an observation.
        frame_stack: Int or None, frames of those leaves that are stacks.
        storage: `Memory` or `MemmapDirectory`, which allocates the arrays.
        action_shape: Tuple of ints, the shape of one action. Defaults to `()`.
    """

    def __init__(
        self,
        num_envs: int,
        num_rows: int,
        leaves: list[Leaf],
        frame_stack: int | None,
        storage: Memory | MemmapDirectory,
        action_shape: tuple[int, ...] = (),
    ) -> None:
        self.num_rows = num_rows
        self.ring_size = num_rows + 1
        self.num_slots = num_envs * self.ring_size
        self.observations = []
        for i, leaf in enumerate(leaves):
            shape = (self.num_slots, *leaf.row_shape)
            self.observations.append(storage.allocate(f"observation{i}", shape, leaf.dtype))
        self.is_stack = [leaf.is_stack for leaf in leaves]
        self.actions = storage.allocate("action", (self.num_slots, *action_shape), np.int32)
        self.rewards = storage.allocate("reward", (self.num_slots,), np.float32)
        self.flags = storage.allocate("flags", (self.num_slots,), np.uint8)
        self.num_transitions = 0
        # Python numbers: for one row at a time, they are several times faster than NumPy's.
        self.heads_list = [0] * num_envs
        self.runs_list = [False] * num_envs
        self._storage = storage
        self._frame_stack = frame_stack
        self._frames = None if frame_stack is None else np.arange(1 - frame_stack, 1)

    def arrays(self) -> dict[str, NDArray]:
        """Returns all arrays, with one entry per slot."""
        observations = {f"observation{i}": array for i, array in enumerate(self.observations)}
        return {**observations, "action": self.actions, "reward": self.rewards, "flags": self.flags}

    def restore(self, heads: list[int], runs: list[bool]) -> None:
        """Takes the counts of arrays that were changed directly."""
        self.heads_list, self.runs_list = list(heads), list(runs)
        self.num_transitions = 0
        for env in range(len(heads)):
            row = np.arange(max(0, heads[env] - self.num_rows), heads[env])
            flags = self.flags[env * self.ring_size + row % self.ring_size]
            self.num_transitions += int(np.count_nonzero(flags < BOUNDARY))

    def heads(self) -> NDArray[np.int64]:
        """Returns the row after the last complete step of each environment, `[E]`."""
        return np.array(self.heads_list, np.int64)

    def stored(self) -> NDArray[np.int64]:
        """Returns the number of rows in each ring, `[E]`; they are the rows before its head."""
        return np.minimum(self.heads(), self.num_rows)

    def holds_rows(self, env: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns whether transitions start in rows `[B]` of environments `[B]`."""
        heads = self.heads()[env]
        stored = (row >= np.maximum(heads - self.num_rows, 0)) & (row < heads)
        return stored & (self.flags[self.slots(env, row)] < BOUNDARY)

    def slots(self, env: Any, row: Any) -> NDArray[np.int64]:
        """Returns the slots of rows `[B]` of environments `[B]` in the arrays."""
        return env * self.ring_size + row % self.ring_size

    def rows(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the environments `[B]` and rows `[B]` that are in slots `[B]`."""
        env, offset = np.divmod(slots, self.ring_size)
        heads = self.heads()[env]
        return env, heads - (heads - offset) % self.ring_size

    def take(
        self, env: NDArray[np.int64], row: NDArray[np.int64], slots: Any = None
    ) -> list[NDArray]:
        """Returns the observations in rows `[B]` of environments `[B]`, one `[B, ...]` per leaf.

        `slots` `[B]` are the slots of these rows, if they are known.
        """
        if slots is None:
            slots = self.slots(env, row)
        stacks = slots
        if self._frames is not None:
            stacks = self.slots(env[:, None], row[:, None] + self._frames)
        return [
            np.asarray(leaf).take(stacks if is_stack else slots, axis=0)
            for leaf, is_stack in zip(self.observations, self.is_stack, strict=True)
        ]

    def windows(
        self, env: NDArray[np.int64], row: NDArray[np.int64], gamma: float, n_step: int
    ) -> Windows:
        """Returns the windows from rows `[B]` of environments `[B]`; complete only if stored."""
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
        older_frames = 0 if self._frame_stack is None else self._frame_stack - 1
        first = np.where(heads > self.num_rows, heads - self.num_rows + older_frames, 0)
        window.complete[row < first[env]] = False
        return window


def rows_before(
    stops: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns environments and rows `[N]`: the last `counts[e]` rows before row `stops[e]`."""
    env = np.repeat(np.arange(len(stops)), counts)
    return env, np.arange(len(env)) + np.repeat(stops - np.cumsum(counts), counts)
