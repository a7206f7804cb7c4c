"""What version 0.1.0 saved still loads, to the last bit; `fixtures/make.py` has written it."""

import pathlib
import shutil

import keras
import numpy as np
import pytest
from conftest import KERAS_VERSION
from fixtures.make import batches, columns

import keras_dqn

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
EXPECTED = np.load(FIXTURES / "expected.npz")


@pytest.mark.skipif(KERAS_VERSION < (3, 15), reason="written by Keras 3.15")
def test_an_agent_loads_and_goes_on():
    agent = keras.models.load_model(FIXTURES / "agent.keras")
    assert type(agent) is keras_dqn.DQN
    assert agent.double is True
    assert agent.steps_per_execution == 4
    assert int(agent.update_count) == EXPECTED["updates"] == 3
    assert int(agent.optimizer.iterations) == EXPECTED["iterations"]
    observation = batches(1)[0][0]
    for name, values in (
        ("values", agent.predict(observation, verbose=0)),
        ("target values", agent.target_network(observation).numpy()),
        ("td errors", agent.td_errors(batches(1)[0])),
    ):
        np.testing.assert_allclose(values, EXPECTED[name], rtol=0, atol=1e-6, err_msg=name)
    agent.train_on_batch(*batches(4)[3])
    assert int(agent.optimizer.iterations) == EXPECTED["iterations"] + 1
    assert np.any(agent.predict(observation, verbose=0) != EXPECTED["values"])


@pytest.mark.parametrize("name", ["uniform", "prioritized", "rank", "memmap"])
def test_a_replay_buffer_loads_and_draws_on(name, tmp_path):
    cls = keras_dqn.ReplayBuffer if name == "uniform" else keras_dqn.PrioritizedReplayBuffer
    path = FIXTURES / ("memmap" if name == "memmap" else f"{name}.h5")
    if name == "memmap":
        path = shutil.copytree(path, tmp_path / "memmap")
    replay = cls.load(path)
    assert len(replay) > 30
    drawn = columns(replay.sample(32, gamma=0.5, n_step=3))
    for column, values in drawn.items():
        np.testing.assert_array_equal(values, EXPECTED[f"{name} {column}"], err_msg=column)
