"""Reads transitions from rings, as the columns that `fit` unpacks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay.n_step import Windows
from keras_dqn.replay.ring_arrays import RingArrays
from keras_dqn.spaces.observation_spec import ObservationSpec


def gather(
    rings: RingArrays,
    spec: ObservationSpec,
    env: NDArray[np.int64],
    row: NDArray[np.int64],
    slots: NDArray[np.int64],
    window: Windows,
) -> tuple[Any, dict[str, Any]]:
    """Returns the observations and transitions that start in given rows.

    Args:
        rings: The `RingArrays` with the rows.
        spec: The spec of an observation.
        env: `[N]` int64, environments.
        row: `[N]` int64, rows of these environments.
        slots: `[N]` int64, the slots of these rows.
        window: The `Windows` that start in these rows, `[N]`.
    """
    transition = {
        "action": rings.actions[slots],
        "reward": window.reward.astype(np.float32),
        "discount": window.discount.astype(np.float32),
        "next_observation": spec.pack(rings.take(env, row + window.steps)),
    }
    return spec.pack(rings.take(env, row, slots)), transition


def stacked(columns: Any, num_batches: int) -> Any:
    """Returns (nested dicts or tuples of) columns `[K * B, ...]` as `[K, B, ...]`."""
    if isinstance(columns, dict):
        return {name: stacked(column, num_batches) for name, column in columns.items()}
    if isinstance(columns, tuple):
        return tuple(stacked(column, num_batches) for column in columns)
    return columns.reshape(num_batches, -1, *columns.shape[1:])
