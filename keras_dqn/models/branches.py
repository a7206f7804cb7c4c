"""Rows of a loss: one for each step, or with D branches one for each branch of each step."""

from typing import Any, NamedTuple

import keras

from keras_dqn.models.checks import check_ranks


class Rows(NamedTuple):
    """What a loss compares.

    Attributes:
        target: `[R, N]`; R is B, or B * D.
        prediction: `[R, ...]`, the prediction of the agent's `predict_taken`.
        weight: `[R]` or None.
        num_branches: Int, D, or None.
    """

    target: Any
    prediction: Any
    weight: Any
    num_branches: int | None

    def mean(self, errors: Any) -> Any:
        """Returns `[B]` for numbers of rows `[R]`: the mean over the branches of a step."""
        return errors if self.num_branches is None else keras.ops.mean(self._split(errors), axis=1)

    def sum(self, errors: Any) -> Any:
        """Returns `[B]` for numbers of rows `[R]`: the sum over the branches of a step."""
        return errors if self.num_branches is None else keras.ops.sum(self._split(errors), axis=1)

    def _split(self, errors: Any) -> Any:
        return keras.ops.reshape(errors, (-1, self.num_branches))


def rows_of(action: Any, target: Any, prediction: Any, weight: Any) -> Rows:
    """Returns the rows of a loss. The branches of a step share its target and its weight.

    Keras would not expand weights `[B]` over `[B, D]`, and if B is D, it would weight branches.

    Args:
        action: `[B]` or `[B, D]` integer.
        target: `[B, N]`.
        prediction: `[B, ...]` or `[B, D, ...]`.
        weight: `[B]` or None.

    Raises:
        ValueError: If the target or the prediction has no axis `[N]`.
    """
    check_ranks(target, prediction)
    if len(action.shape) == 1:
        return Rows(target, prediction, weight, None)
    num_branches = action.shape[1]
    prediction = keras.ops.reshape(prediction, (-1, *prediction.shape[2:]))
    target = keras.ops.repeat(target, num_branches, axis=0)
    if weight is not None:
        weight = keras.ops.repeat(weight, num_branches, axis=0)
    return Rows(target, prediction, weight, num_branches)
