"""Layers that behave one way in training and another in inference, or keep a state."""

import keras
import numpy as np
import pytest
from td_reference import (
    K4,
    K4_XLA,
    Reference,
    each_kind,
    in_executions,
    in_executions_with_xla,
    sgd,
)

from keras_dqn import SoftTargetUpdate

L = keras.layers


def network_with(*layers):
    return keras.Sequential([keras.Input((3,)), *layers, L.Dense(2)])


KINDS = {
    "spectral": lambda: network_with(L.SpectralNormalization(L.Dense(4, "tanh"))),
    "batch norm": lambda: network_with(L.BatchNormalization(momentum=0.6)),
    "layer norm": lambda: network_with(L.LayerNormalization()),
    "dropout": lambda: network_with(L.Dropout(0.5, seed=3)),
}
WITHOUT_DRAWS = [kind for kind in KINDS if kind != "dropout"]


@each_kind(WITHOUT_DRAWS, several=K4_XLA)
def test_equals_the_reference(make_agent, make_batches, as_dataset, kind, execution):
    """Double Q: the online network runs once in training, for x, and once in inference."""
    batches = make_batches(8, batch_size=8)
    agent = make_agent(KINDS[kind](), double=True, loss="mse", **execution)
    reference = Reference(agent).run(batches, sgd(0.1))
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    reference.check(agent, atol=5e-5)


@in_executions
def test_statistics_of_batch_norm(make_agent, make_batches, as_dataset, execution):
    """The moving mean is that of the batches, in NumPy; the target has a copy of it."""
    batches = make_batches(4, batch_size=8)
    network = keras.Sequential([keras.Input((3,)), L.BatchNormalization(momentum=0.6), L.Dense(2)])
    agent = make_agent(network, double=True, **execution)
    normalizations = [net.layers[0] for net in (network, agent.target_network)]
    mean, variance = (s.numpy() for s in normalizations[0].non_trainable_variables)
    for x, _, _ in batches:
        mean, variance = 0.6 * mean + 0.4 * x.mean(0), 0.6 * variance + 0.4 * x.var(0)
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    for layer in normalizations:
        np.testing.assert_allclose(layer.moving_mean.numpy(), mean, rtol=0, atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance.numpy(), variance, rtol=0, atol=1e-5)


@in_executions
def test_spectral_norm_is_one_in_the_online_network_alone(
    make_agent, make_batches, as_dataset, execution
):
    agent = make_agent(
        KINDS["spectral"](), double=True, optimizer=keras.optimizers.SGD(0.0), **execution
    )
    online, target = (net.layers[0] for net in (agent.network, agent.target_network))
    before = [weight.numpy() for weight in target.weights]
    batches = make_batches(32)
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.0, 1_000)])
    assert np.linalg.norm(online.kernel.numpy(), 2) == pytest.approx(1.0, abs=1e-3)
    for a, b in zip(before, target.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    agent.fit(as_dataset(batches[:4]), verbose=0, callbacks=[SoftTargetUpdate(0.0)])
    np.testing.assert_array_equal(target.vector_u.numpy(), online.vector_u.numpy())
    np.testing.assert_array_equal(target.kernel.numpy(), before[0])


@in_executions_with_xla
def test_dropout_of_the_online_network_alone(make_agent, as_dataset, execution):
    """In training Q = 1 is 0 or 2 for each row, while the target always is 10."""
    network = keras.Sequential(
        [keras.Input((1,)), L.Dropout(0.5, seed=3), L.Dense(2, use_bias=False)]
    )
    agent = make_agent(network, double=True, optimizer=keras.optimizers.SGD(0.0), **execution)
    network.set_weights([np.full((1, 2), 1.0)])
    agent.target_network.set_weights([np.full((1, 2), 10.0)])
    one = np.ones((1, 1), np.float32)
    transition = {
        "action": np.zeros(1, np.int32),
        "reward": np.zeros(1, np.float32),
        "discount": np.ones(1, np.float32),
        "next_observation": one,
    }
    num_steps = execution["steps_per_execution"]
    batch = (one, transition, np.ones(1, np.float32))
    target_seed = seed_of(agent.target_network)
    history = agent.fit(
        as_dataset([batch] * num_steps), epochs=20, verbose=0, callbacks=[SoftTargetUpdate(0.0)]
    ).history
    sums = num_steps * np.array(history["q_value"])
    assert set(sums % 2) == {0.0}
    assert len(set(sums)) > 1
    np.testing.assert_allclose(history["abs_td_error"], 10 - np.array(history["q_value"]))
    # A seed's second number counts the draws: one an update.
    np.testing.assert_array_equal(seed_of(network), [3, 20 * num_steps])
    np.testing.assert_array_equal(seed_of(agent.target_network), target_seed)
    assert target_seed[0] != 3


def seed_of(network):
    (layer,) = (layer for layer in network.layers if isinstance(layer, L.Dropout))
    return layer.seed_generator.state.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_acts_saves_and_goes_on(make_agent, make_batches, as_dataset, tmp_path, kind):
    agent = make_agent(KINDS[kind](), double=True, **K4)
    agent.fit(as_dataset(make_batches(4)), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    x = make_batches(batch_size=64)[0][0]
    values = agent.predict(x, verbose=0)
    target_values = agent.target_network.predict(x, verbose=0)
    assert np.any(np.abs(values - target_values) > 1e-3)
    for _ in range(2):
        np.testing.assert_array_equal(agent.act(x), values.argmax(-1))
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), values)
    np.testing.assert_array_equal(loaded.target_network.predict(x, verbose=0), target_values)
    for each in (agent, loaded):
        each.fit(as_dataset(make_batches(4, seed=1)), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
        assert int(each.update_count) == 8
        assert np.any(each.predict(x, verbose=0) != values)
    if kind in WITHOUT_DRAWS:  # Keras does not save the states of seed generators
        for a, b in zip(agent.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
