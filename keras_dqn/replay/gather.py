"""Reads transitions out of rings, as the columns that `fit` unpacks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay.n_step import Windows
from keras_dqn.replay.rings import Rings
from keras_dqn.spaces.observation_spec import ObservationSpec


def gather(
    rings: Rings,
    spec: ObservationSpec,
    env: NDArray[np.int64],
    row: NDArray[np.int64],
    window: Windows,
    further: dict[str, NDArray],
    lead: tuple[int, ...],
) -> tuple[Any, dict[str, Any]]:
    """Returns the observations and transitions that start in given rows.

    Args:
        rings: The rows.
        spec: The spec of an observation.
        env: `[N]` int64, environments.
        row: `[N]` int64, rows of them.
        window: What follows these rows, `[N]`.
        further: Further columns of the transitions, `[N]`.
        lead: The shape that the axis N gets: `(B,)`, or `(K, B)` for a stack.
    """

    def shaped(column: NDArray) -> NDArray:
        return column.reshape(*lead, *column.shape[1:])

    def observations(row: NDArray[np.int64]) -> Any:
        return spec.pack([shaped(leaf) for leaf in rings.take(env, row)])

    transition = {
        "action": shaped(rings.actions[rings.slots(env, row)]),
        "reward": shaped(window.reward.astype(np.float32)),
        "discount": shaped(window.discount.astype(np.float32)),
        "next_observation": observations(row + window.steps),
        **{name: shaped(column) for name, column in further.items()},
    }
    return observations(row), transition
