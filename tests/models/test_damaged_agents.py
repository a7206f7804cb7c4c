"""A damaged `.keras` file of an agent is refused by Keras, or has equal contents; never silence."""

import keras
import numpy as np
import pytest
from conftest import damage

import keras_dqn


def state_of(agent):
    return {**agent.get_state(), "action_start": agent.action_start, "double": agent.double}


def try_damages(agent, folder, count, rng):
    """Returns how many damaged files were refused."""
    original, path = folder / "agent.keras", folder / "damaged.keras"
    agent.action_start = 3
    agent.save(original)
    expected = state_of(keras.models.load_model(original))
    refused = 0
    for _ in range(count):
        path.write_bytes(damage(original.read_bytes(), rng))
        try:
            loaded = keras.models.load_model(path)
        except Exception:
            refused += 1
            continue
        assert type(loaded) is keras_dqn.DQN
        np.testing.assert_equal(state_of(loaded), expected)
    return refused


@pytest.fixture
def agent():
    agent = keras_dqn.DQN(
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    )
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    return agent


def test_damaged_files(agent, tmp_path):
    assert try_damages(agent, tmp_path, 12, np.random.default_rng(0)) > 3


@pytest.mark.hard
def test_damaged_files_in_full(agent, tmp_path):
    refused = try_damages(agent, tmp_path, 500, np.random.default_rng(1))
    print(f"{refused} of 500 damaged files were refused")
    assert refused > 100
