"""Transfer learning: a saved network with a new head, frozen first and thawed later."""

import keras
import numpy as np
import pytest
from conftest import shake
from td_reference import K4, Reference, in_executions, sgd

from keras_dqn import DQN, SoftTargetUpdate


@pytest.fixture
def transferred(tmp_path):
    """An agent for 2 actions on the frozen base of a saved network for 4 actions."""
    teacher = DQN(
        keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(6, "tanh"),
                keras.layers.Dense(5, "tanh"),
                keras.layers.Dense(4),
            ]
        )
    )
    shake(teacher.network)
    teacher.network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    base = keras.Model(loaded.inputs, loaded.layers[-2].output)
    base.trainable = False
    for a, b in zip(teacher.network.get_weights(), base.get_weights(), strict=False):
        np.testing.assert_array_equal(a, b)
    return DQN(keras.Sequential([base, keras.layers.Dense(2)]), double=True), base


def compile_for(agent, execution):
    agent.compile(keras.optimizers.SGD(0.1), loss="mse", **execution)


def assert_equal(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a, b)


@in_executions
def test_frozen_base_stays_and_the_head_learns(transferred, make_batches, as_dataset, execution):
    agent, base = transferred
    compile_for(agent, execution)
    assert_equal(agent.network.get_weights(), agent.target_network.get_weights())
    before, head = base.get_weights(), agent.network.layers[1].get_weights()
    shake(agent.target_network)
    batches = make_batches(8)
    reference = Reference(agent).run(batches, sgd(0.1))
    assert len(reference.network.trainable_variables) == 2
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    reference.check(agent)
    assert_equal(base.get_weights(), before)
    # What does not train is copied to the target, not blended.
    assert_equal(agent.target_network.layers[0].get_weights(), before)
    assert np.any(agent.network.layers[1].get_weights()[0] != head[0])


@in_executions
def test_thawed_base_learns(transferred, make_batches, as_dataset, execution):
    agent, base = transferred
    compile_for(agent, execution)
    batches = make_batches(8)
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    base.trainable = True
    compile_for(agent, execution)
    before = base.get_weights()
    reference = Reference(agent).run(batches, sgd(0.1))
    assert len(reference.network.trainable_variables) == 6
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    reference.check(agent)
    for a, b, c in zip(
        before, base.get_weights(), agent.target_network.layers[0].get_weights(), strict=True
    ):
        assert np.any(a != b)
        assert np.any(b != c)


def test_frozen_base_is_frozen_when_loaded(transferred, make_batches, as_dataset, tmp_path):
    agent, base = transferred
    compile_for(agent, K4)
    before = base.get_weights()
    agent.fit(as_dataset(make_batches(4)), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    for each in (agent, loaded):
        each.fit(as_dataset(make_batches(4)), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    assert_equal(agent.get_weights(), loaded.get_weights())
    assert_equal(loaded.network.layers[0].get_weights(), before)
