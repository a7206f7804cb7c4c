"""Copies, batches and compares observations: arrays `[E, ...]`, or dicts or tuples of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def copy_of(observation: Any) -> Any:
    """Returns a copy, because an environment may reuse the array for its next observation."""
    if isinstance(observation, dict):
        return {key: copy_of(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(copy_of(value) for value in observation)
    return None if observation is None else np.array(observation)


def batch_of(observation: Any) -> Any:
    """Returns a copy of one environment's observation, with the axis `[E]`."""
    if isinstance(observation, dict):
        return {key: batch_of(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(batch_of(value) for value in observation)
    return np.array(observation)[None]


def leaves_of(observation: Any) -> list[Any]:
    """Returns the arrays of nested dicts, tuples and lists; those of a dict sorted by its keys.

    `keras.tree.flatten` has the same order, except that it does not sort an `OrderedDict`.
    """
    if isinstance(observation, dict):
        return [leaf for key in sorted(observation) for leaf in leaves_of(observation[key])]
    if isinstance(observation, (tuple, list)):
        return [leaf for value in observation for leaf in leaves_of(value)]
    return [observation]


def with_leaves(observation: Any, leaves: Iterator[Any]) -> Any:
    """Returns the structure of an observation with other arrays, in the order of `leaves_of`."""
    if isinstance(observation, dict):
        return {key: with_leaves(observation[key], leaves) for key in sorted(observation)}
    if isinstance(observation, (tuple, list)):
        values = [with_leaves(value, leaves) for value in observation]
        return values if isinstance(observation, list) else tuple(values)
    return next(leaves)


def check_all_envs(observation: Any, num_envs: int) -> None:
    """Raises a `ValueError` unless a vector environment has observed all its environments."""
    received = len(leaves_of(observation)[0])
    if received != num_envs:
        raise ValueError(
            "`env` must step all its environments together: envpool needs `batch_size` equal to "
            f"`num_envs`. Received: {num_envs} environments, observations of {received}"
        )


def equal(observation: Any, saved: Any) -> bool:
    """Returns whether an observation is equal to a saved one, which may have been through JSON."""
    if isinstance(observation, dict):
        return all(equal(value, saved[key]) for key, value in observation.items())
    if isinstance(observation, tuple):
        return all(equal(value, part) for value, part in zip(observation, saved, strict=True))
    saved = np.asarray(saved)
    if saved.shape != observation.shape:
        return False
    both_nan = (observation != observation) & (saved != saved)
    return bool(((observation == saved) | both_nan).all())


def with_rows(observation: Any, rows: Any, where: NDArray[np.bool_]) -> Any:
    """Returns a copy of `observation` `[E, ...]` that has `rows[e]` where `where[e]` is True."""
    if isinstance(observation, dict):
        return {
            key: with_rows(value, {e: rows[e][key] for e in np.flatnonzero(where)}, where)
            for key, value in observation.items()
        }
    if isinstance(observation, tuple):
        return tuple(
            with_rows(value, {e: rows[e][i] for e in np.flatnonzero(where)}, where)
            for i, value in enumerate(observation)
        )
    observation = observation.copy()
    for e in np.flatnonzero(where):
        observation[e] = rows[e]
    return observation
