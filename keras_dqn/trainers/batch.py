"""The batch that `fit` unpacks, `(observation, transition, weight)`, and its one check.

`observation` is `[B, ...]` (or a dict of arrays). `transition` is a dict with `action` `[B]`
integer, `reward` `[B]` float32, `discount` `[B]` float32, `next_observation` like `observation`
and, for priorities, `key` `[B]` int64. `weight` is `[B]` float32 or None.
"""

from typing import Any, NamedTuple

import keras

_COLUMNS = ("action", "reward", "discount")


class Batch(NamedTuple):
    """A batch as `fit` unpacks it: `[B, ...]`, a dict of `[B, ...]`, and `[B]` or None."""

    observation: Any
    transition: dict
    weight: Any


def unpack_batch(data: Any) -> Batch:
    """Returns the observation, the transition and the weight (or None) of a batch.

    Args:
        data: The batch: tensors, arrays or their specs.

    Raises:
        ValueError: If `data` is not such a batch.
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


def with_feedback(logs: dict, td_error: Any, priority: Any) -> dict:
    """Returns logs of `train_step` with TD errors and priorities, `[B]` each.

    The trainer takes both out again, before Keras sees the logs.

    Raises:
        ValueError: If a metric has one of their names.
    """
    taken = {"td_error", "priority"} & logs.keys()
    if taken:
        raise ValueError(
            f"A metric must not be named `{min(taken)}`, because `train_step` returns a "
            f"value for each row of a batch under this name. Received: metrics {sorted(logs)}"
        )
    return {**logs, "td_error": td_error, "priority": priority}


def without_feedback(logs: dict, batch: Batch) -> tuple[dict, Any]:
    """Returns the logs of `train_step` for Keras, and priorities `[B]` for batches with keys.

    Raises:
        ValueError: If a batch has keys and there is nothing to set their priorities by.
    """
    logs = dict(logs)
    td_error = logs.pop("td_error", None)
    priority = logs.pop("priority", td_error)
    if "key" not in batch.transition:
        return logs, None
    if priority is None or len(priority.shape) != 1:
        raise ValueError(
            "`train_step` must return `td_error`, of shape [B], among its logs for batches with a "
            f"`key`, whose priorities it sets. Received: td_error={priority}"
        )
    return logs, priority


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
