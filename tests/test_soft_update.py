"""`soft_update` as a call of its own: one program, which always blends the weights of now."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import shake

from keras_dqn import soft_update


def pair(dtype=None):
    """Two networks that differ in every weight."""
    networks = []
    for seed in (1, 2):
        network = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, dtype=dtype),
                keras.layers.BatchNormalization(dtype=dtype),
                keras.layers.Dropout(0.5, seed=seed),
                keras.layers.Dense(2, dtype=dtype),
            ]
        )
        shake(network, seed)
        networks.append(network)
    return networks


def blended(source, target, tau):
    """The same in NumPy; statistics are copied, seeds are left."""
    trainable = {id(weight) for weight in source.trainable_weights}
    return [
        following + tau * (online - following) if id(weight) in trainable else online
        for weight, online, following in zip(
            source.weights, source.get_weights(), target.get_weights(), strict=True
        )
    ]


def assert_equal(network, expected):
    for a, b in zip(network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_it_blends_again_and_again_with_any_tau():
    source, target = pair()
    for tau in (0.5, 0.25, 1.0, 0.0, 0.1):
        expected = blended(source, target, tau)
        soft_update(source, target, tau)
        assert_equal(target, expected)
        shake(source, seed=3)


def test_tau_1_copies_to_the_bit():
    source, target = pair()
    source.weights[0].assign(np.full((3, 4), 1e8 / 3, np.float32))
    soft_update(source, target, 1.0)
    for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_tau_is_no_new_trace(monkeypatch):
    source, target = pair()
    soft_update(source, target, 0.1)
    monkeypatch.setattr(keras.Variable, "assign", None)  # what a trace, or no program, calls
    before = target.get_weights()[0]
    soft_update(source, target, 0.2)
    assert np.abs(target.get_weights()[0] - before).max() > 0.0


def test_what_is_frozen_later_is_copied():
    source, target = pair()
    soft_update(source, target, 0.5)
    source.layers[0].trainable = False
    shake(source, seed=3)
    soft_update(source, target, 0.5)
    np.testing.assert_array_equal(target.get_weights()[0], source.get_weights()[0])
    assert np.abs(target.get_weights()[-1] - source.get_weights()[-1]).max() > 0.0


def test_layers_that_were_built_again_are_blended():
    source, target = pair()
    soft_update(source, target, 0.5)
    for network in (source, target):
        network.pop()
        network.add(keras.layers.Dense(5))
    shake(source, seed=3)
    expected = blended(source, target, 0.5)
    soft_update(source, target, 0.5)
    assert_equal(target, expected)


def test_another_source_for_the_same_target():
    source, target = pair()
    other, _ = pair()
    soft_update(source, target, 0.5)
    shake(other, seed=4)
    expected = blended(other, target, 0.5)
    soft_update(other, target, 0.5)
    assert_equal(target, expected)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "mixed_bfloat16"])
def test_other_dtypes(dtype):
    source, target = pair(dtype=dtype)
    expected = blended(source, target, 0.3)
    soft_update(source, target, 0.3)
    atol = 2e-2 if dtype == "bfloat16" else 1e-6
    for a, b in zip(target.get_weights(), expected, strict=True):
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=0, atol=atol
        )


def test_inside_a_function_of_the_users():
    source, target = pair()
    expected = blended(source, target, 0.3)
    tf.function(lambda: soft_update(source, target, 0.3))()
    assert_equal(target, expected)


def test_no_network_is_kept_alive():
    source, target = pair()
    soft_update(source, target, 0.5)
    references = [weakref.ref(network) for network in (source, target)]
    del source, target
    gc.collect()
    assert [reference() for reference in references] == [None, None]
