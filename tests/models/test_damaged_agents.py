"""A damaged `.keras` file of an agent is refused by Keras, or has equal contents; never silence."""

import keras
import numpy as np
import pytest

import keras_dqn


def damage(content, rng):
    """Flips a byte, cuts the end off or writes zeros somewhere."""
    content = bytearray(content)
    at = int(rng.integers(len(content)))
    kind = rng.integers(3)
    if kind == 0:
        content[at] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del content[at:]
    else:
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    return bytes(content)


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
