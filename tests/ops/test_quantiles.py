"""The quantile Huber loss: by hand, against a slow reference, and against RLax."""

import numpy as np
import pytest

from keras_dqn import ops

FRACTIONS = np.array([[1 / 6, 0.5, 5 / 6]], np.float32)


def slow_loss(target, prediction, fractions, kappa):
    total = 0.0
    for fraction, quantile in zip(fractions, prediction, strict=True):
        for sample in target:
            error = sample - quantile
            if abs(error) <= kappa:
                size = error**2 / 2
            else:
                size = kappa * (abs(error) - kappa / 2) if kappa else abs(error)
            total += abs(fraction - (error < 0)) * size / len(target)
    return total


def test_midpoints_by_hand():
    np.testing.assert_allclose(ops.midpoints(3), FRACTIONS[0], rtol=1e-6)
    assert ops.midpoints(1).tolist() == [0.5]


def test_a_loss_by_hand():
    # target 0 and 4; quantiles -1 (fraction 0.25) and 3 (fraction 0.75), kappa 1.
    # -1: errors 1 and 5, above: 0.25 * (0.5 + 4.5) / 2 = 0.625.
    # 3: error -3 below: |0.75 - 1| * 2.5 = 0.625; error 1 above: 0.75 * 0.5 = 0.375; mean 0.5.
    target, prediction = np.array([[0.0, 4.0]], "float32"), np.array([[-1.0, 3.0]], "float32")
    fractions = np.array([[0.25, 0.75]], "float32")
    loss = ops.quantile_huber(target, prediction, fractions, 1.0)
    np.testing.assert_allclose(loss, [1.125], rtol=1e-6)


@pytest.mark.parametrize(
    ("kappa", "expected"),
    [(0.0, 0.7783333659172058), (1.0, 0.3484472930431366), (0.5, 0.2617194652557373)],
)
def test_it_agrees_with_rlax(kappa, expected):
    """The numbers are of RLax 0.1.9.

    quantile_q_learning(dist_q_tm1=[[0.2, 99], [0.9, 98], [1.5, 97]], tau_q_tm1=[1/6, 1/2, 5/6],
    a_tm1=0, r_t=-0.3, discount_t=0.9, dist_q_t_selector=dist_q_t, dist_q_t=[[0.5, 1], [0.7, -0.4],
    [2.5, 1.2]], huber_param=kappa): action 0 has the larger mean.
    """
    target = -0.3 + 0.9 * np.array([[0.5, 0.7, 2.5]], np.float32)
    prediction = np.array([[0.2, 0.9, 1.5]], np.float32)
    loss = ops.quantile_huber(target, prediction, FRACTIONS, kappa)
    np.testing.assert_allclose(loss, [expected], rtol=1e-5)


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_losses_against_the_slow_reference(kappa):
    rng = np.random.default_rng(0)
    target = rng.normal(size=(6, 5)).astype(np.float32)
    prediction = rng.normal(size=(6, 4)).astype(np.float32)
    fractions = rng.random((6, 4)).astype(np.float32)
    loss = np.asarray(ops.quantile_huber(target, prediction, fractions, kappa))
    expected = [slow_loss(*row, kappa) for row in zip(target, prediction, fractions, strict=True)]
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    # Fractions of one row serve all rows.
    same = ops.quantile_huber(target, prediction, fractions[:1], kappa)
    again = ops.quantile_huber(target, prediction, np.tile(fractions[:1], (6, 1)), kappa)
    np.testing.assert_allclose(same, again, rtol=1e-6)


@pytest.mark.parametrize("which", range(3))
def test_wrong_ranks_are_refused(which):
    arguments = [np.zeros((2, 3), np.float32)] * 3
    arguments[which] = np.zeros(3, np.float32)
    name = ("target", "prediction", "fractions")[which]
    with pytest.raises(ValueError, match=f"`{name}` must have rank 2"):
        ops.quantile_huber(*arguments, 1.0)
