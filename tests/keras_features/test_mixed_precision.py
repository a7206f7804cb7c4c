"""Mixed precision under `agent.fit`: float16 or bfloat16 layers, float32 weights and targets."""

import keras
import numpy as np
import pytest
from conftest import shake
from td_reference import K1, K4, Reference, in_executions_with_xla, sgd

from keras_dqn import DQN, SoftTargetUpdate

POLICIES = ["mixed_float16", "mixed_bfloat16"]
INITIAL_SCALE = 2.0**15  # of Keras' LossScaleOptimizer


def agent_of(policy, optimizer=None, **compile_kwargs):
    """An agent whose layers take the policy as an argument."""
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(5, "tanh", dtype=policy),
            keras.layers.Dense(2, dtype=policy),
        ]
    )
    agent = DQN(network, double=True, dtype=policy)
    agent.compile(optimizer or keras.optimizers.SGD(1.0), loss="mse", **compile_kwargs)
    shake(agent.target_network)
    return agent


@pytest.fixture
def mild_batches(make_batches):
    """Makes batches whose gradients, at the initial scale, do not overflow in float16."""

    def make(*args, **kwargs):
        return [(x, y, 0.05 * w) for x, y, w in make_batches(*args, **kwargs)]

    return make


@pytest.fixture
def globally():
    """Makes an agent of layers that know of no policy, under the global one."""
    before = keras.config.dtype_policy()

    def make(policy, *args, **kwargs):
        keras.config.set_dtype_policy(policy)
        return agent_of(None, *args, **kwargs)

    yield make
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("is_global", "execution"),
    [(True, K1), (True, K4), (False, K4)],
    ids=["global policy, K=1", "global policy, K=4", "layers' dtype, K=4"],
)
def test_close_to_float32(mild_batches, as_dataset, globally, policy, is_global, execution):
    agent = (globally if is_global else agent_of)(policy, **execution)
    full = agent_of("float32")
    full.set_weights(agent.get_weights())
    batches = mild_batches(8)
    reference = Reference(full).run(2 * batches, sgd(1.0))
    history = agent.fit(
        as_dataset(batches), epochs=2, verbose=0, callbacks=[SoftTargetUpdate(0.3)]
    ).history
    scaled = isinstance(agent.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert {w.dtype for w in agent.network.weights + agent.target_network.weights} == {"float32"}
    # 11 bits of precision and 8.
    tolerance = 2e-3 if policy == "mixed_float16" else 2e-2
    losses = np.reshape(reference.losses, (2, 8)).mean(axis=1)
    np.testing.assert_allclose(history["loss"], losses, rtol=tolerance)
    assert losses[1] < losses[0]
    reference.check(agent, atol=tolerance)
    for a, b in zip(agent.network.weights, reference.network.weights, strict=True):
        assert np.any(np.abs(a.numpy() - b.numpy()) > 1e-6)  # or nothing was done in fewer bits


@pytest.mark.parametrize("policy", POLICIES)
def test_targets_are_computed_in_float32(mild_batches, as_dataset, policy):
    """70,000.5 is infinite in float16 and 70,144 in bfloat16."""
    agent = agent_of(policy, keras.optimizers.SGD(0.0), **K4)
    batches = mild_batches(4)
    expected = []
    for x, y, _ in batches:
        y["reward"][:] = 70_000.5
        rows = np.arange(len(x))
        chosen = agent.network(y["next_observation"]).numpy().argmax(-1)
        next_value = agent.target_network(y["next_observation"]).numpy().astype(float)[rows, chosen]
        prediction = agent.network(x).numpy().astype(float)[rows, y["action"]]
        expected.append(np.mean(y["reward"] + y["discount"] * next_value - prediction))
    history = agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.0)]).history
    # XLA and the fusing of operations may round the network's outputs another way.
    assert history["abs_td_error"] == [pytest.approx(np.mean(expected), abs=0.05)]


def spoiled(batch):
    """A batch whose scaled gradients are no float16 (they exceed 65,504)."""
    x, y, w = batch
    return x, {**y, "reward": np.full_like(y["reward"], 1e4)}, w


@in_executions_with_xla
def test_overflow_halves_the_scale_and_skips_the_step(mild_batches, as_dataset, execution):
    batches = mild_batches(4)
    batches[1] = spoiled(batches[1])
    agent, reference = agent_of("mixed_float16", **execution), agent_of("mixed_float16", **K1)
    reference.set_weights(agent.get_weights())
    start = agent.network.get_weights()
    # The target stays, so that the run equals one without the batch.
    good = [batches[0], *batches[2:]]
    reference.fit(as_dataset(good), verbose=0, callbacks=[SoftTargetUpdate(0.0)])
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.0)])
    assert float(reference.optimizer.dynamic_scale) == INITIAL_SCALE
    assert float(agent.optimizer.dynamic_scale) == INITIAL_SCALE / 2
    assert int(agent.optimizer.iterations) == 3
    assert int(agent.update_count) == 4
    pairs = zip(agent.network.get_weights(), reference.network.get_weights(), start, strict=True)
    for a, b, before in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
        assert np.any(a != before)


def test_target_follows_through_overflows(mild_batches, as_dataset):
    agent = agent_of("mixed_float16", **K4)
    online, target = agent.network.get_weights(), agent.target_network.get_weights()
    bad = [spoiled(batch) for batch in mild_batches(4)]
    agent.fit(as_dataset(bad), verbose=0, callbacks=[SoftTargetUpdate(0.5)])
    assert float(agent.optimizer.dynamic_scale) == INITIAL_SCALE / 2**4
    for a, b, c in zip(online, target, agent.target_network.get_weights(), strict=True):
        np.testing.assert_allclose(c, a + 0.5**4 * (b - a), rtol=0, atol=1e-6)
    for a, b in zip(online, agent.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", POLICIES)
def test_acts_saves_and_goes_on(mild_batches, as_dataset, tmp_path, policy):
    agent = agent_of(policy, **K4)
    batches = [*mild_batches(3), spoiled(mild_batches()[0])]
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.2)])
    x = mild_batches(batch_size=64)[0][0]
    values = agent.predict(x, verbose=0)
    np.testing.assert_array_equal(agent.act(x), values.argmax(-1))
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert loaded.network.layers[0].compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), values)
    for each in (agent, loaded):
        each.fit(as_dataset(mild_batches(4)), verbose=0, callbacks=[SoftTargetUpdate(0.2)])
    if policy == "mixed_float16":
        assert float(loaded.optimizer.dynamic_scale) == INITIAL_SCALE / 2
    for a, b in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
