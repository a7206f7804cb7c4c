"""Quantiles of returns: B rows, N predicted quantiles, M samples of the target."""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_dqn.ops.checks import check_rank


def midpoints(num_quantiles: int) -> NDArray[np.float32]:
    """Returns the fractions in the middle of N equal parts of [0, 1], `[N]` float32.

    Reference:
        Dabney et al., 2018, "Distributional reinforcement learning with quantile regression",
        lemma 2.
    """
    return ((np.arange(num_quantiles) + 0.5) / num_quantiles).astype(np.float32)


def quantile_huber(target: Any, prediction: Any, fractions: Any, kappa: float) -> Any:
    """Computes the quantile Huber loss between predicted quantiles and samples of a target.

    ```
    u_ij = target_j - prediction_i
    loss = sum_i mean_j |fraction_i - (u_ij < 0)| * huber(u_ij, kappa)
    ```

    Args:
        target: `[B, M]` float32.
        prediction: `[B, N]` float32.
        fractions: `[B, N]` or `[1, N]` float32 in (0, 1), the fraction of each prediction.
        kappa: Float of at least 0, where the Huber loss becomes linear. 0 is quantile regression
            with the absolute error.

    Returns:
        `[B]` float32.

    Raises:
        ValueError: If a tensor has the wrong rank.

    Reference:
        Dabney et al., 2018, "Distributional reinforcement learning with quantile regression",
        equations 9 and 10. "Implicit quantile networks for distributional reinforcement learning",
        equation 3, divides it by kappa, which is the same for kappa = 1.
    """
    for name, tensor in (("target", target), ("prediction", prediction), ("fractions", fractions)):
        check_rank(name, tensor, 2)
    error = ops.expand_dims(target, 1) - ops.expand_dims(prediction, 2)  # [B, N, M]
    if kappa:
        clipped = ops.clip(error, -kappa, kappa)
        size = clipped * (error - clipped / 2.0)  # faster than two branches
    else:
        size = ops.abs(error)
    side = ops.abs(ops.expand_dims(fractions, 2) - ops.cast(error < 0, error.dtype))
    return ops.sum(ops.mean(side * size, axis=2), axis=1)
