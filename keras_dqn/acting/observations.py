"""Copies, batches and compares observations: arrays `[E, ...]`, or dicts or tuples of them."""

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
