"""Losses that Keras lacks."""

from typing import Any

import keras

from keras_dqn import ops
from keras_dqn.arguments import check_number

__all__ = ["QuantileHuber"]


@keras.saving.register_keras_serializable(package="keras_dqn")
class QuantileHuber(keras.losses.Loss):
    """Computes the quantile Huber loss between quantiles and samples of a distribution.

    ```
    u_ij = y_true_j - y_pred_i
    loss = sum_i mean_j |fraction_i - (u_ij < 0)| * huber(u_ij, kappa)
    ```

    Args:
        kappa: Float of at least 0, in units of return, where the Huber loss becomes linear. 0 is
            quantile regression with the absolute error. Defaults to `1.0`.
        reduction: String, as in Keras. Defaults to `"sum_over_batch_size"`.
        name: String. Defaults to `"quantile_huber"`.
        **kwargs: Further arguments of `keras.losses.Loss`.

    Call arguments:
        y_true: `[B, M]`, samples of the target.
        y_pred: `[B, N]`, the quantiles at the midpoints of N equal parts of [0, 1]; or `[B, N, 2]`,
            quantiles and their fractions.

    Errors below kappa count squared, so with `kappa=1` quantiles of returns that differ by less
    than 1 are expectiles instead, and their mean is not the mean of the returns. Use a smaller
    kappa, or larger rewards.

    Raises:
        ValueError: If `kappa` is below 0.

    Example:
    >>> target, quantiles = keras.ops.array([[0.0]]), keras.ops.array([[-1.0, 3.0]])
    >>> round(float(QuantileHuber()(target, quantiles)), 3)  # 0.25 * 0.5 + 0.25 * 2.5
    0.75

    Reference:
        Dabney et al., 2018, "Distributional reinforcement learning with quantile regression",
        equations 9 and 10.
    """

    def __init__(
        self,
        kappa: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str = "quantile_huber",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.kappa = check_number("kappa", kappa, 0.0)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each row, `[B]`."""
        if len(y_pred.shape) == 3:
            fractions, y_pred = y_pred[..., 1], y_pred[..., 0]
        else:
            fractions = keras.ops.cast(ops.midpoints(y_pred.shape[-1])[None], y_pred.dtype)
        return ops.quantile_huber(y_true, y_pred, fractions, self.kappa)

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "kappa": self.kappa}
