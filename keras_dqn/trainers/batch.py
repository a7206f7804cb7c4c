"""The batch that `fit` unpacks, `(observation, transition, weight)`, and its one check.

`observation` is `[B, ...]` (or a dict of such). `transition` is a dict with `action` `[B]` integer,
`reward` `[B]` float32, `discount` `[B]` float32, `next_observation` like `observation` and, for
priorities, `key` `[B]` int64. `weight` is `[B]` float32 or None.
"""

from typing import Any, NamedTuple

import keras

_COLUMNS = ("action", "reward", "discount")


class Batch(NamedTuple):
    """What `fit` unpacks: `[B, ...]`, a dict of `[B, ...]`, and `[B]` or None."""

    observation: Any
    transition: dict
    weight: Any


def unpack_batch(data: Any) -> Batch:
    """Returns the observation, the transition and the weight (or None) of a batch.

    Args:
        data: The batch: tensors, arrays or their specs.

    Raises:
        ValueError: If it is no such batch.
    """
    observation, transition, weight = keras.utils.unpack_x_y_sample_weight(data)
    if not isinstance(transition, dict) or not {*_COLUMNS, "next_observation"} <= {*transition}:
        raise _refusal(_description(data))
    for name in _COLUMNS:
        if len(transition[name].shape) != 1:
            raise _refusal(f"`{name}` of shape {tuple(transition[name].shape)}")
    if isinstance(weight, dict):  # Keras repeats the weights of arrays for each entry of a dict.
        weight = weight["reward"]
    return Batch(observation, transition, weight)


def with_td_error(logs: dict, td_error: Any) -> dict:
    """Returns logs of `train_step` with TD errors `[B]`, which the trainer takes out again.

    Raises:
        ValueError: If a metric has their name.
    """
    if "td_error" in logs:
        raise ValueError(
            "A metric must not be named `td_error`: under this name `train_step` returns the TD "
            f"errors of a batch. Received: metrics {sorted(logs)}"
        )
    return {**logs, "td_error": td_error}


def _refusal(received: str) -> ValueError:
    return ValueError(
        "A batch must be `(observation, transition, weight)`, as `ReplayBuffer.dataset` and "
        "`sample` give it, with a dict `transition` of `action`, `reward`, `discount`, each of "
        f"shape [B], and `next_observation`. Received: {received}"
    )


def _description(data: Any) -> str:
    if isinstance(data, dict):
        return f"a dict of {sorted(map(str, data))}"
    if isinstance(data, (tuple, list)):
        return f"({', '.join(map(_description, data))})"
    shape = getattr(data, "shape", None)
    return type(data).__name__ if shape is None else f"shape {tuple(shape)}"
