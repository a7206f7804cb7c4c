import keras
import numpy as np
import pytest
from conftest import shake

import keras_dqn
from keras_dqn.acting import litert_program


def stack(*layers, shape=(6,), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers, keras.layers.Dense(3)])


L = keras.layers
NETWORKS = {
    "dense": lambda: stack(L.Dense(8, "relu"), L.Dense(8, "gelu")),
    "layer norm": lambda: stack(L.Dense(8), L.LayerNormalization()),
    "batch norm": lambda: stack(L.Dense(8), L.BatchNormalization()),
    "dropout": lambda: stack(L.Dense(8), L.Dropout(0.5, seed=1)),
    "lambda": lambda: stack(L.Lambda(lambda x: x * 2.0 + 1.0)),
    "rescaled uint8": lambda: stack(L.Rescaling(1 / 255), L.Dense(8), dtype="uint8"),
    "flatten": lambda: stack(L.Flatten(), L.Dense(8), shape=(2, 3)),
    "embedding": lambda: stack(L.Embedding(5, 4), L.Flatten(), shape=(1,), dtype="int32"),
    "lstm": lambda: stack(L.LSTM(4), shape=(5, 2)),
    "convolution": lambda: stack(L.Conv2D(2, 3), L.Flatten(), shape=(6, 6, 1)),
    "attention": lambda: stack(
        L.Reshape((3, 2)), L.EinsumDense("abc,cd->abd", (3, 4)), L.Flatten()
    ),
}


def observations(network, count):
    rng = np.random.default_rng(0)
    shape = (count, *network.input_shape[1:])
    dtype = network.inputs[0].dtype
    if dtype == "float32":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 5, size=shape).astype(dtype)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_values_equal_the_network(make):
    agent = keras_dqn.DQN(make())
    policy = agent.policy()
    for count in (1, 5):
        x = observations(agent.network, count)
        np.testing.assert_allclose(
            policy.action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
        )
        np.testing.assert_array_equal(policy(x), agent.act(x))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_refresh_reads_every_change_of_the_weights(make):
    agent = keras_dqn.DQN(make())
    policy = agent.policy()
    x = observations(agent.network, 4)
    before = policy.action_values(x).copy()
    shake(agent.network)
    np.testing.assert_array_equal(policy.action_values(x), before)
    policy.refresh()
    assert np.any(policy.action_values(x) != before)
    np.testing.assert_allclose(
        policy.action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
    )


def test_statistics_of_batch_norm_are_read_again(make_batches, as_dataset):
    agent = keras_dqn.DQN(
        keras.Sequential([keras.Input((3,)), L.BatchNormalization(momentum=0.1), L.Dense(2)])
    )
    agent.compile("sgd")
    policy = agent.policy()
    x = make_batches()[0][0]
    policy.action_values(x)
    agent.fit(as_dataset(make_batches(4)), verbose=0, callbacks=[keras_dqn.SoftTargetUpdate()])
    policy.refresh()
    np.testing.assert_allclose(
        policy.action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
    )


def test_rule_that_chooses(monkeypatch, make_agent):
    agent = make_agent()
    assert agent.policy().backend == "litert"
    assert keras_dqn.DQN(NETWORKS["convolution"]()).policy().backend == "compiled"
    monkeypatch.setattr(litert_program, "Interpreter", None)
    policy = agent.policy()
    assert policy.backend == "compiled"
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(policy.action_values(x), agent.predict(x, verbose=0), atol=1e-5)


def test_operation_that_the_converter_does_not_know_is_compiled():
    class Bessel(keras.layers.Layer):
        def call(self, inputs):
            import tensorflow as tf

            return tf.math.special.bessel_i0(inputs)

        def compute_output_shape(self, input_shape):
            return input_shape

    agent = keras_dqn.DQN(stack(Bessel()))
    policy = agent.policy()
    x = np.ones((2, 6), np.float32)
    np.testing.assert_allclose(policy.action_values(x), agent.predict(x, verbose=0), atol=1e-5)
    assert policy.backend == "compiled"


def test_float64_observations(make_agent):
    agent = make_agent()
    x = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(
        agent.policy().action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
    )


def test_mixed_precision_is_compiled():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        agent = keras_dqn.DQN(stack(L.Dense(8)))
    finally:
        keras.config.set_dtype_policy("float32")
    policy = agent.policy()
    x = np.ones((2, 6), np.float32)
    assert policy.action_values(x).dtype == np.float32
    assert policy.backend == "compiled"
