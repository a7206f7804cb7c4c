"""`QuantileHuber` as a Keras loss: weights, configs, mixed precision, saving."""

import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn.losses import QuantileHuber

TARGET = np.array([[0.0, 4.0], [1.0, 1.0]], np.float32)
PREDICTION = np.array([[-1.0, 3.0], [1.0, 1.0]], np.float32)


def test_it_is_the_mean_over_the_batch_and_takes_weights():
    # Row 0 is computed by hand in tests/ops/test_quantiles.py: 1.125. Row 1 is exact: 0.
    np.testing.assert_allclose(QuantileHuber()(TARGET, PREDICTION), 1.125 / 2, rtol=1e-6)
    weighted = QuantileHuber()(TARGET, PREDICTION, np.array([3.0, 9.0], np.float32))
    np.testing.assert_allclose(weighted, 3.0 * 1.125 / 2, rtol=1e-6)
    rows = QuantileHuber(reduction=None)(TARGET, PREDICTION)
    np.testing.assert_allclose(rows, [1.125, 0.0], rtol=1e-6)


def test_fractions_may_come_with_the_prediction():
    fractions = np.tile(np.array([0.25, 0.75], np.float32), (2, 1))
    with_fractions = np.stack([PREDICTION, fractions], axis=-1)
    expected = QuantileHuber()(TARGET, PREDICTION)
    np.testing.assert_allclose(QuantileHuber()(TARGET, with_fractions), expected, rtol=1e-6)
    other = np.stack([PREDICTION, 1.0 - fractions], axis=-1)
    assert abs(float(QuantileHuber()(TARGET, other)) - float(expected)) > 0.1


def test_config_and_serialization():
    loss = QuantileHuber(kappa=0.5, name="own", reduction="sum")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert (again.kappa, again.name, again.reduction) == (0.5, "own", "sum")


def test_it_minimises_at_the_quantiles():
    """Quantiles of (1, 2, ..., 100): gradient descent of a plain Keras model finds them."""
    samples = np.arange(1.0, 101.0, dtype=np.float32)[None]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, use_bias=False)])
    schedule = keras.optimizers.schedules.PolynomialDecay(30.0, 300, 0.0)
    model.compile(keras.optimizers.SGD(schedule), loss=keras_dqn.losses.QuantileHuber(0.0))
    x, y = np.ones((300, 1), np.float32), np.repeat(samples, 300, axis=0)
    model.fit(x, y, batch_size=1, verbose=0)
    # The midpoints are 1/8, 3/8, 5/8, 7/8.
    np.testing.assert_allclose(model(x[:1])[0], [12.5, 37.5, 62.5, 87.5], atol=1.5)


def test_kappa_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"`kappa` must be at least 0\. Received: kappa=-1"):
        QuantileHuber(kappa=-1.0)
