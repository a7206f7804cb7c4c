"""Removes what an interrupted write can have damaged: it is over the oldest rows first."""

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay.n_step import BOUNDARY

AN_ADD = 1  # stands for the rows of one `add`

# In one `add`: the first observation after an episode that was cut, and the next observation.
_MOST_ROWS = 2


def drop_unfinished(
    flags: NDArray[np.uint8],
    heads: list[int],
    frame_stack: int | None,
    num_rows: int = AN_ADD,
    envs: Container[int] | None = None,
) -> tuple[NDArray[np.int64], list[bool]]:
    """Makes boundary rows of all rows that an unfinished write can have damaged.

    An `add` writes up to two observations, and the older frames of an episode's first one, over
    the oldest rows of a full ring. A block's rows are written over the oldest ones too. The stacks
    of the next rows contain these frames. The other rows are whole.

    Args:
        flags: `[E * R]` uint8, the flags of all slots; they are changed.
        heads: List of E ints, the head of each ring before the write, or after it.
        frame_stack: Int or None, frames that an observation stacks.
        num_rows: Int, rows that were written at most into each ring; 1 stands for an `add`.
            Defaults to `1`.
        envs: The environments that were written, or None for all. Defaults to `None`.

    Returns:
        The slots of these rows, `[N]` int64; and for each environment whether its episode runs.
    """
    older_frames = 0 if frame_stack is None else frame_stack - 1
    ring_size = len(flags) // len(heads)
    if num_rows == AN_ADD:
        num_rows = _MOST_ROWS + older_frames
    slots, runs = [], []
    for env, head in enumerate(heads):
        first = head - (ring_size - 1)
        written = num_rows + older_frames if envs is None or env in envs else 0
        stop = min(first + written, head)
        slots.append(env * ring_size + np.arange(max(first, 0), max(stop, 0)) % ring_size)
        flags[slots[-1]] = BOUNDARY
        # The last row of a running episode is a step, and that of another one is its end.
        runs.append(head > 0 and bool(flags[env * ring_size + (head - 1) % ring_size] < BOUNDARY))
    return np.concatenate(slots), runs
