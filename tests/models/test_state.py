"""An agent's `get_state` and `set_state`: what `.keras` leaves out is in it."""

import keras
import numpy as np
import pytest
from conftest import shake

import keras_dqn


def make(seed=None, **kwargs):
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8, "tanh"),
            keras.layers.Dropout(0.5, seed=seed),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )
    agent = keras_dqn.DQN(network, double=True)
    agent.compile(keras.optimizers.Adam(0.05), metrics=["mae"], jit_compile=False, **kwargs)
    shake(agent.target_network)
    return agent


def test_another_agent_goes_on_from_it(make_batches):
    batches = make_batches(6)
    agent, other = make(seed=1), make(seed=2)
    for batch in batches[:3]:
        agent.train_on_batch(*batch)
        agent.update_target(0.5)
    state = agent.get_state()
    assert state["target_follows"] is True
    other.set_state(state)
    for one in (agent, other):
        for batch in batches[3:]:
            one.train_on_batch(*batch)
    # Dropout draws the same, since the states of the seed generators came along.
    np.testing.assert_equal(other.get_state(), agent.get_state())
    assert int(other.update_count) == 6
    assert any(np.any(a != b) for a, b in zip(state["variables"], agent.variables, strict=True))


def test_normalization_computes_with_the_restored_values():
    def make(scale):
        layer = keras.layers.Normalization()
        layer.adapt(np.array([[-scale], [scale]]))
        return keras_dqn.DQN(keras.Sequential([keras.Input((1,)), layer, keras.layers.Dense(2)]))

    agent, other = make(1.0), make(4.0)
    for one in (agent, other):
        one.build((None, 1))
    other.set_state(agent.get_state())
    x = np.ones((1, 1), "float32")
    for name in ("network", "target_network"):
        np.testing.assert_array_equal(getattr(other, name)(x), getattr(agent, name)(x))


def test_states_of_other_agents_are_refused(make_agent):
    agent = make()
    before = agent.get_state()
    with pytest.raises(ValueError, match="`state` must hold variables with the shapes"):
        agent.set_state(make_agent().get_state())
    uncompiled = keras_dqn.DQN(keras.models.clone_model(agent.network))
    uncompiled.build((None, 3))
    with pytest.raises(ValueError, match="`state` must hold optimizer_variables with the shape"):
        agent.set_state(uncompiled.get_state())
    np.testing.assert_equal(agent.get_state(), before)
