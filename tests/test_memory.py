"""Memory stays flat over many updates and many calls of `fit`."""

import ctypes
import gc
import os

import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn


def resident_mebibytes():
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)  # else what is freed could take a leak in, unseen
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_agent_and_replay(steps_per_execution):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    agent = keras_dqn.DQN(network)
    agent.compile("adam", steps_per_execution=steps_per_execution)
    space = gym.spaces.Box(-9, 9, (3,))
    replay = keras_dqn.ReplayBuffer(1_000, space, gym.spaces.Discrete(2), seed=0)
    for step in range(1_000):
        replay.add(np.full(3, step % 7), step % 2, 1.0, False, False, np.full(3, (step + 1) % 7))
    return agent, replay


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux' /proc")


@needs_proc
@pytest.mark.parametrize("epochs", [20, pytest.param(60, marks=pytest.mark.hard)])
def test_100_000_updates_or_300_000(epochs):
    """In 1,000 executions, or 3,000, which leave less than 3 KiB each."""
    agent, replay = make_agent_and_replay(steps_per_execution=100)

    def train(epochs):
        agent.fit(
            replay.dataset(8),
            epochs=epochs,
            steps_per_epoch=5_000,
            verbose=0,
            callbacks=[keras_dqn.SoftTargetUpdate()],
        )

    train(6)
    before = resident_mebibytes()
    train(epochs)
    assert int(agent.update_count) == 30_000 + epochs * 5_000
    assert resident_mebibytes() - before < 8 * epochs / 60


@needs_proc
@pytest.mark.parametrize("fits", [100, pytest.param(300, marks=pytest.mark.hard)])
def test_100_fits_or_300(fits):
    """Each leaves less than 14 KiB."""
    agent, replay = make_agent_and_replay(steps_per_execution=50)

    def train(number):
        for _ in range(number):
            agent.fit(
                replay.dataset(8),
                steps_per_epoch=50,
                verbose=0,
                callbacks=[keras_dqn.SoftTargetUpdate()],
            )

    train(50)
    before = resident_mebibytes()
    train(fits)
    assert resident_mebibytes() - before < 4 * fits / 300
