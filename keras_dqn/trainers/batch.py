"""Unpacks and checks the batch that `fit` trains on, `(observation, transition, weight)`.

`observation` is `[B, ...]` (or a dict of arrays). `transition` is a dict with `action` `[B]` or
`[B, D]` integer, `reward` `[B]` float32, `discount` `[B]` float32 and `next_observation`, shaped
like `observation`. Prioritized replay adds `key` `[B]` int64. `weight` is `[B]` float32 or None.
"""

from typing import Any, NamedTuple

import keras

_COLUMNS = ("action", "reward", "discount")


class Batch(NamedTuple):
    """An unpacked batch: `[B, ...]`, a dict of `[B, ...]`, and `[B]` or None."""

    observation: Any
    transition: dict
    weight: Any


def unpack_batch(data: Any) -> Batch:
    """Returns the observation, the transition and the weight (or None) of a batch.

    Args:
        data: The batch: tensors, arrays or their specs.

    Raises:
        ValueError: If `data` has another form.
    """
    observation, transition, weight = keras.utils.unpack_x_y_sample_weight(data)
    if not isinstance(transition, dict) or not {*_COLUMNS, "next_observation"} <= {*transition}:
        raise _refusal(_description(data))
    for name in _COLUMNS:
        if len(transition[name].shape) not in ((1, 2) if name == "action" else (1,)):
            raise _refusal(f"`{name}` of shape {tuple(transition[name].shape)}")
    if isinstance(weight, dict):  # Keras repeats the weights of arrays for each entry of a dict.
        weight = weight["reward"]
    return Batch(observation, transition, weight)


def with_feedback(logs: dict, td_error: Any, priority: Any) -> dict:
    """Adds TD errors and priorities, `[B]` each, to the logs of `train_step`.

    The trainer removes both before Keras sees the logs.

    Raises:
        ValueError: If a metric is named `td_error` or `priority`.
    """
    taken = {"td_error", "priority"} & logs.keys()
    if taken:
        raise ValueError(
            f"A metric must not be named `{min(taken)}`, because `train_step` returns a "
            f"value for each row of a batch under this name. Received: metrics {sorted(logs)}"
        )
    return {**logs, "td_error": td_error, "priority": priority}


def without_feedback(logs: dict, batch: Batch) -> tuple[dict, Any]:
    """Separates the logs of `train_step` for Keras from the priorities `[B]` of a batch with keys.

    Raises:
        ValueError: If a batch has keys, but the logs have no TD error of shape `[B]`.
    """
    logs = dict(logs)
    td_error = logs.pop("td_error", None)
    priority = logs.pop("priority", td_error)
    if "key" not in batch.transition:
        return logs, None
    if priority is None or len(priority.shape) != 1:
        raise ValueError(
            "`train_step` must return `td_error`, of shape [B], in its logs if a batch has a "
            f"`key`: it sets the priorities. Received: td_error={priority}"
        )
    return logs, priority


def _refusal(received: str) -> ValueError:
    return ValueError(
        "A batch must be `(observation, transition, weight)`, as `ReplayBuffer.dataset` and "
        "`sample` return it. `transition` must be a dict of `action`, `reward` and `discount`, "
        f"each of shape [B], and `next_observation`. Received: {received}"
    )


def _description(data: Any) -> str:
    if isinstance(data, dict):
        return f"a dict of {sorted(map(str, data))}"
    if isinstance(data, (tuple, list)):
        return f"({', '.join(map(_description, data))})"
    shape = getattr(data, "shape", None)
    return type(data).__name__ if shape is None else f"shape {tuple(shape)}"
