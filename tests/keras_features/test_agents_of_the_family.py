"""Keras features with each representation: normalisation, executions, mixed precision."""

import itertools

import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn.layers import DuelingHead

NORMALISED = (
    lambda: keras.layers.SpectralNormalization(keras.layers.Dense(6)),
    lambda: keras.layers.LayerNormalization(),
    lambda: keras.layers.Activation("relu"),
)
INFERENCE = (
    lambda: keras.layers.Dense(6, "relu"),
    lambda: keras.layers.BatchNormalization(),
    lambda: keras.layers.Dropout(0.5),
)


def torso(layers):
    return keras.Sequential([keras.Input((3,)), *(layer() for layer in layers)])


def network(layers, num_outputs):
    return keras.Sequential([torso(layers), DuelingHead(2, num_outputs, noisy=True)])


MAKE = {
    "plain": lambda layers: keras_dqn.DQN(network(layers, 1), munchausen=keras_dqn.Munchausen()),
    "c51": lambda layers: keras_dqn.CategoricalDQN(
        network(layers, 5), num_atoms=5, v_min=-2.0, v_max=2.0, double=True
    ),
    "hl_gauss": lambda layers: keras_dqn.HLGaussDQN(
        network(layers, 5), num_bins=5, v_min=-2.0, v_max=2.0, conservative=0.3
    ),
    "quantiles": lambda layers: keras_dqn.QuantileDQN(
        network(layers, 5), num_quantiles=5, double=True
    ),
    "implicit": lambda layers: keras_dqn.ImplicitQuantileDQN(
        torso(layers), DuelingHead(2, noisy=True), num_cosines=4, double=True
    ),
}


def train(make, layers, batches, steps_per_execution):
    keras.utils.set_random_seed(1)
    agent = make(layers)
    agent.compile(
        keras.optimizers.Adam(0.01), steps_per_execution=steps_per_execution, jit_compile=False
    )
    agent.fit(batches, verbose=0, callbacks=[keras_dqn.SoftTargetUpdate(0.1)])
    return agent


LAYERS = {"normalised": NORMALISED, "inference": INFERENCE}
SAMPLE = {  # in the default suite: each kind, each of the layers twice
    ("plain", "normalised"),
    ("c51", "inference"),
    ("hl_gauss", "normalised"),
    ("quantiles", "inference"),
    ("implicit", "normalised"),
}


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        pytest.param(*pair, marks=() if pair in SAMPLE else pytest.mark.hard)
        for pair in itertools.product(MAKE, LAYERS)
    ],
)
def test_an_execution_of_four_updates_equals_four_executions(
    kind, layers, make_batches, as_dataset
):
    """Bit for bit, with noise, normalisation, dropout and the statistics of batches."""
    batches = make_batches(8)
    agents = [train(MAKE[kind], LAYERS[layers], as_dataset(batches), k) for k in (1, 4)]
    for one, other in zip(*(agent.get_weights() for agent in agents), strict=True):
        np.testing.assert_array_equal(one, other)
    observation = batches[0][0]
    agent = agents[0]
    values = agent.q_values(agent.outputs_of(agent.network, observation))
    np.testing.assert_allclose(agent.policy().action_values(observation), values, atol=1e-5)


@pytest.mark.parametrize("kind", ["c51", "implicit"])
def test_mixed_precision(kind, make_batches, as_dataset):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        agent = train(MAKE[kind], NORMALISED[1:], as_dataset(make_batches(4)), 2)
        batch = make_batches(1)[0]
        target = agent.compute_target(batch[0], batch[1])
        assert target.dtype == "float32"
        assert np.isfinite(target).all()
        assert all(np.isfinite(weight).all() for weight in agent.get_weights())
    finally:
        keras.mixed_precision.set_global_policy("float32")
