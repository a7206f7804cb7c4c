"""Distributions over N fixed values (atoms or bins): B rows, probabilities on the last axis."""

import math
from typing import Any

from keras import ops

from keras_dqn.ops.checks import check_rank


def project(probabilities: Any, atoms: Any, support: Any) -> Any:
    """Projects a distribution onto a support of evenly spaced atoms.

    Each atom gives its probability to its two neighbours in the support, the nearer one gets more.
    Atoms outside the support give it to the outer atom. The sum of the probabilities does not
    change, and the mean does not change where nothing is clipped.

    ```
    p_i = sum_j p(j) * max(0, 1 - |clip(atom_j, v_min, v_max) - z_i| / width)
    ```

    Args:
        probabilities: `[B, M]` float32.
        atoms: `[B, M]` float32, the values that have these probabilities.
        support: `[N]` float32, evenly spaced and growing.

    Returns:
        `[B, N]` float32.

    Raises:
        ValueError: If a tensor has the wrong rank.

    Reference:
        Bellemare et al., 2017, "A distributional perspective on reinforcement learning",
        equation 7 and Algorithm 1.
    """
    check_rank("probabilities", probabilities, 2)
    check_rank("atoms", atoms, 2)
    check_rank("support", support, 1)
    width = (support[-1] - support[0]) / (support.shape[0] - 1)
    atoms = ops.expand_dims(ops.clip(atoms, support[0], support[-1]), 1)  # [B, 1, M]
    distance = ops.abs(atoms - ops.reshape(support, (1, -1, 1))) / width  # [B, N, M]
    shares = ops.maximum(1.0 - distance, 0.0)
    return ops.sum(shares * ops.expand_dims(probabilities, 1), axis=2)


def gaussian_histogram(values: Any, edges: Any, sigma: float) -> Any:
    """Spreads each value as a normal distribution over bins.

    ```
    p_i = (F(edge_{i+1}) - F(edge_i)) / (F(edge_N) - F(edge_0)),  F the CDF of N(value, sigma)
    ```

    Args:
        values: `[B]` float32. Values outside the edges are clipped to them.
        edges: `[N + 1]` float32, the growing edges of the bins.
        sigma: Float above 0, the standard deviation, in the unit of the values.

    Returns:
        `[B, N]` float32; each row has the sum 1.

    Raises:
        ValueError: If a tensor has the wrong rank.

    Reference:
        Farebrother et al., 2024, "Stop regressing: Training value functions via classification for
        scalable deep RL", section 3.1 and appendix A.
    """
    check_rank("values", values, 1)
    check_rank("edges", edges, 1)
    values = ops.expand_dims(ops.clip(values, edges[0], edges[-1]), 1)
    below = ops.erf((ops.expand_dims(edges, 0) - values) / (math.sqrt(2.0) * sigma))
    return (below[:, 1:] - below[:, :-1]) / (below[:, -1:] - below[:, :1])


def kl_divergence(probabilities: Any, logits: Any) -> Any:
    """Computes how far predicted distributions are from target distributions; 0 if they are equal.

    ```
    sum_i p_i * (log p_i - log softmax(logits)_i)
    ```

    Args:
        probabilities: `[B, N]` float32, the targets.
        logits: `[B, N]` float32, the predictions.

    Returns:
        `[B]` float32, at least 0.

    Raises:
        ValueError: If a tensor has the wrong rank.
    """
    check_rank("probabilities", probabilities, 2)
    check_rank("logits", logits, 2)
    logs = ops.log(ops.maximum(probabilities, 1e-30)) - ops.log_softmax(logits, axis=-1)
    # Rounding can make the sum slightly negative.
    return ops.maximum(ops.sum(probabilities * logs, axis=-1), 0.0)
