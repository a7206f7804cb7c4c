"""Checks the contents of a replay buffer's file: says what is wrong in a damaged or forged one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.hdf5 import Ranges
from keras_dqn.replay.n_step import BOUNDARY, TERMINATED, TRUNCATED

_LARGEST_HEAD = 1 << 53  # rows, thousands of years of steps


def used_ranges(heads: list[int], ring_size: int) -> Ranges:
    """Returns the written slots of each ring, including the slot of its head."""
    return [
        (env * ring_size, env * ring_size + min(head + 1, ring_size))
        for env, head in enumerate(heads)
    ]


def wrong_counters(counters: Any, num_envs: int) -> str:
    """Returns a text that says what is wrong with the counters of a header, or ""."""
    if not isinstance(counters, dict):
        return "its counters are not a dict"
    heads: Any = counters.get("heads")
    runs: Any = counters.get("runs")
    if not _is_list_of(int, heads, num_envs) or not all(0 <= h < _LARGEST_HEAD for h in heads):
        return f"its counts of rows are {heads}"
    if not _is_list_of(bool, runs, num_envs):
        return f"its flags of running episodes are {runs}"
    updates, largest = counters.get("updates", 0), counters.get("largest_priority", 1.0)
    if type(updates) is not int or updates < 0:
        return f"its number of updates is {updates}"
    if type(largest) not in (int, float) or not 0.0 <= largest < np.inf:
        return f"its largest priority is {largest}"
    without = counters.get("batches_without_feedback", 0)
    if type(without) is not int or without < 0:
        return f"its number of batches without feedback is {without}"
    seen: Any = counters.get("seen_heads", heads)
    if not _is_list_of(int, seen, num_envs) or not all(
        0 <= s <= h for s, h in zip(seen, heads, strict=True)
    ):
        return f"its counts of rows with priorities are {seen}"
    return ""


def wrong_priorities(priorities: dict[str, Any]) -> str:
    """Returns a text that says what is wrong with the priorities of a state, or ""."""
    for name, values in priorities.items():
        if not np.isfinite(values).all() or np.any(np.less(values, 0)):
            return f"its {name!r} holds values that no buffer writes"
    if np.any(np.diff(priorities.get("ranked_priority", ())) > 0):
        return "its 'ranked_priority' is not sorted"
    return ""


def wrong_arrays(arrays: dict[str, NDArray], used: Ranges, action_sizes: Any) -> str:
    """Returns a text that says what is wrong with the used entries of a buffer's arrays, or "".

    Observations of a mapped file are not checked, because that would read the whole file.
    `action_sizes` is `ActionSpec.sizes`.
    """
    for start, stop in used:
        for name, array in arrays.items():
            if isinstance(array, np.memmap) and name.startswith("observation"):
                continue
            values = array[start:stop]
            if not _fits(name, values, action_sizes):
                return f"its {name!r} holds values that no buffer writes"
    return ""


def _fits(name: str, values: NDArray, action_sizes: Any) -> bool:
    if name == "action":
        return bool(((values >= 0) & (values < action_sizes)).all())
    if name == "flags":
        return bool((values <= TERMINATED | TRUNCATED | BOUNDARY).all())
    if values.dtype.kind != "f":
        return True
    finite = bool(np.isfinite(values).all())
    return finite and (not name.startswith("priority") or bool((values >= 0).all()))


def _is_list_of(kind: type, value: Any, length: int) -> bool:
    is_list = isinstance(value, list) and len(value) == length
    return is_list and all(type(item) is kind for item in value)
