"""`train_on_batch`: one update in one program, with the TD errors of that very step."""

import keras
import numpy as np
import pytest
from conftest import KERAS_VERSION

import keras_dqn


def update_by_fit(agent, batch):
    """The update of `fit`, without the target's."""
    x, y, w = batch
    agent.fit(
        x,
        y,
        sample_weight=w,
        batch_size=len(w),
        verbose=0,
        callbacks=[keras_dqn.SoftTargetUpdate(0.0)],
    )


def twins(make_agent, **kwargs):
    agents = [make_agent(optimizer=keras.optimizers.Adam(0.01), **kwargs) for _ in range(2)]
    agents[1].set_weights(agents[0].get_weights())
    return agents


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_it_is_the_update_of_fit(make_agent, make_batches, run_eagerly):
    agent, reference = twins(make_agent, double=True)
    agent.compile(keras.optimizers.Adam(0.01), run_eagerly=run_eagerly)
    for batch in make_batches(3, batch_size=5):
        agent.train_on_batch(*batch)
        update_by_fit(reference, batch)
    for a, b in zip(agent.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert int(agent.update_count) == int(agent.optimizer.iterations) == 3


def test_td_errors_come_with_the_step(make_agent, make_batches):
    agent = make_agent(double=True)
    for batch in make_batches(3, batch_size=5):
        before = agent.td_errors(batch)
        assert (before < 0).any()
        logs = agent.train_on_batch(*batch, return_dict=True)
        assert isinstance(logs["td_error"], np.ndarray)
        np.testing.assert_allclose(logs["td_error"], before, rtol=0, atol=1e-5)
        np.testing.assert_allclose(logs["priority"], np.abs(before), rtol=0, atol=1e-5)
        assert logs["abs_td_error"] == pytest.approx(np.abs(before).mean(), rel=1e-5)


def test_logs_are_those_of_this_batch_alone(make_agent, make_batches):
    """A metric of `compile` too, whose variables are made while the first batch is traced."""
    agent = make_agent(optimizer=keras.optimizers.SGD(0.0), metrics=["mae"], loss="mse")
    for batch in make_batches(3, batch_size=5):
        error, weight = agent.td_errors(batch), batch[2]
        logs = agent.train_on_batch(*batch, return_dict=True)
        assert logs["loss"] == pytest.approx(np.mean(weight * error**2), rel=1e-5)
        assert logs["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
        values = agent.train_on_batch(*batch)
        scalars = [value for value in logs.values() if isinstance(value, float)]
        np.testing.assert_allclose(sorted(values), sorted(scalars), rtol=1e-5)


def test_values_are_in_the_order_of_keras(make_agent, make_batches):
    agent = make_agent(optimizer=keras.optimizers.SGD(0.0), metrics=["mae"])
    (batch,) = make_batches(1, batch_size=5)
    values = agent.train_on_batch(*batch)
    np.testing.assert_allclose(
        values, agent.evaluate(*batch[:2], sample_weight=batch[2], verbose=0), rtol=1e-5
    )


def test_batches_of_other_shapes_and_without_weights(make_agent, make_batches):
    agent, reference = twins(make_agent)
    for x, y, w in make_batches(1, batch_size=5) + make_batches(1, batch_size=3):
        agent.train_on_batch(x, y)
        update_by_fit(reference, (x, y, np.ones_like(w)))
    for a, b in zip(agent.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_a_new_compile_call_is_respected(make_agent, make_batches):
    agent = make_agent(optimizer=keras.optimizers.SGD(0.1))
    (batch,) = make_batches(1, batch_size=5)
    agent.train_on_batch(*batch)
    agent.compile(keras.optimizers.SGD(0.0))
    before = agent.network.get_weights()
    agent.train_on_batch(*batch)
    for a, b in zip(agent.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_unbuilt_network_is_built_by_its_first_batch(make_batches):
    agent = keras_dqn.DQN(keras.Sequential([keras.layers.Dense(2)]))
    agent.compile("sgd")
    (batch,) = make_batches(1, batch_size=5)
    assert agent.train_on_batch(*batch, return_dict=True)["td_error"].shape == (5,)


@pytest.mark.skipif(KERAS_VERSION < (3, 13), reason="Keras before 3.13 says it in other words")
def test_a_model_that_was_not_compiled_is_refused(make_network, make_batches):
    (batch,) = make_batches(1, batch_size=5)
    with pytest.raises(ValueError, match="compile"):
        keras_dqn.DQN(make_network()).train_on_batch(*batch)


@pytest.mark.parametrize("name", ["td_error", "priority"])
def test_a_metric_of_such_a_name_is_refused(make_agent, make_batches, name):
    agent = make_agent(metrics=[keras.metrics.MeanSquaredError(name=name)])
    (batch,) = make_batches(1, batch_size=5)
    with pytest.raises(ValueError, match=f"must not be named `{name}`"):
        agent.train_on_batch(*batch)


def test_every_dtype_reaches_the_step_as_it_is():
    """Pictures of bytes, halves, flags and 64-bit keys, some of them not contiguous."""
    seen = {}

    class Looks(keras_dqn.DQN):
        def train_step(self, data):
            observation, transition, weight = data
            rows = {"weight": weight, **observation, **transition}
            del rows["next_observation"]
            for name, leaf in rows.items():
                seen[name] = leaf.dtype
            total = {name: keras.ops.cast(leaf, "float64") for name, leaf in rows.items()}
            return {name: keras.ops.sum(leaf) for name, leaf in total.items()}

    rng = np.random.default_rng(0)
    observation = {
        "picture": rng.integers(0, 255, (2, 5, 3, 3), dtype=np.uint8).swapaxes(0, 1),
        "half": rng.normal(size=(5, 2)).astype(np.float16),
        "flag": np.array([True, False, True, True, False]),
        "signed": np.array([-1, 2, -3, 4, -5], np.int8),
    }
    transition = {
        "action": np.array([0, 1, 0, 1, 1], np.int32),
        "reward": rng.normal(size=10).astype(np.float32)[::2],
        "discount": np.full(5, 0.9, np.float32),
        "next_observation": observation,
        "key": np.array([1, -2, 2**40, 4, 5]),
    }
    weight = rng.random(5).astype(np.float32)
    inputs = {name: keras.Input(leaf.shape[1:], name=name) for name, leaf in observation.items()}
    flat = keras.layers.Concatenate()(
        [keras.layers.Flatten()(inputs[name]) for name in ("picture", "half", "flag", "signed")]
    )
    agent = Looks(keras.Model(inputs, keras.layers.Dense(2)(flat)))
    agent.compile("sgd", jit_compile=False)
    logs = agent.train_on_batch(observation, transition, weight, return_dict=True)
    expected = {"weight": weight, **observation, **transition}
    for name, value in logs.items():
        assert value == pytest.approx(expected[name].astype(np.float64).sum(), rel=1e-12), name
        assert seen[name] == expected[name].dtype.name
