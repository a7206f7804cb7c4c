"""Reads the returns that Gymnasium's `RecordEpisodeStatistics` leaves in `info`.

It stands below wrappers that change the rewards for training, so it knows the true return.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def recorded_return(info: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Returns the recorded return `[1]` of the episode of a `gym.Env` that has ended, or None."""
    if _is_record(info.get("episode")):
        return np.array([info["episode"]["r"]], np.float64)
    return None


def recorded_returns(
    info: Mapping[str, Any], ended: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """Returns the recorded returns `[E]` of episodes that have ended in a vector environment.

    An environment without a record has NaN. If no environment has one, the result is None.
    In mode SAME_STEP, environments of a vector environment leave it in `final_info`, and a
    wrapper around the vector environment in `info` itself.

    Args:
        info: Dict as `VectorEnv.step` returns it.
        ended: `[E]` bool, the environments whose episode has ended.
    """
    for place in (info.get("final_info"), info):
        if isinstance(place, Mapping) and _is_record(place.get("episode")):
            has_record = ended & place.get("_episode", ended)
            if has_record.any():
                return np.where(has_record, place["episode"]["r"], np.nan).astype(np.float64)
    return None


def _is_record(value: Any) -> bool:
    """Whether it is such a record: other code may use the key for something else."""
    return isinstance(value, Mapping) and {"r", "l", "t"} <= set(value)
