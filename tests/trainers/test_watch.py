"""Training that diverges is told once, and `TerminateOnNaN` ends it, with priorities or without."""

import warnings

import keras
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import keras_dqn


def buffer(cls):
    replay = cls(60, Box(-9, 9, (3,)), Discrete(2), seed=0)
    rng = np.random.default_rng(0)
    for step in range(60):
        observation, following = rng.normal(size=(2, 3))
        replay.add(observation, step % 2, 1e30, step % 7 == 6, False, following)
    return replay


def fit(agent, replay, callbacks=(), steps=24):
    return agent.fit(
        replay.dataset(4),
        steps_per_epoch=steps,
        epochs=2,
        verbose=0,
        callbacks=[keras_dqn.SoftTargetUpdate(0.5), *callbacks],
    )


def diverging(make_agent, **kwargs):
    return make_agent(optimizer=keras.optimizers.SGD(1e30), loss="mse", **kwargs)


CLASSES = [keras_dqn.ReplayBuffer, keras_dqn.PrioritizedReplayBuffer]


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("cls", CLASSES)
def test_terminate_on_nan_ends_both_kinds_alike(make_agent, cls, steps_per_execution):
    agent = diverging(make_agent, steps_per_execution=steps_per_execution)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(agent, buffer(cls), [keras.callbacks.TerminateOnNaN()])
    assert int(agent.update_count) < 24


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("cls", CLASSES)
def test_without_it_one_message_says_when_and_what_helps(make_agent, cls, steps_per_execution):
    agent, replay = diverging(make_agent, steps_per_execution=steps_per_execution), buffer(cls)
    with pytest.warns(
        UserWarning, match=r"Training has diverged: after update \d+ the loss is"
    ) as w:
        fit(agent, replay)
    assert len(w) == 1
    text = str(w[0].message)
    assert "TerminateOnNaN" in text
    assert "\n" not in text
    if cls is keras_dqn.PrioritizedReplayBuffer:
        replay.update_priorities(replay.sample(4)[1]["key"], np.ones(4))


def test_priorities_stay_as_they_were(make_agent):
    agent, replay = make_agent(), buffer(keras_dqn.PrioritizedReplayBuffer)
    agent.network.layers[-1].bias.assign([np.nan, np.nan])
    before = replay.arrays()["priority_value"].copy()
    with pytest.warns(UserWarning, match="4 of 4 TD errors are not finite"):
        fit(agent, replay, steps=2)
    np.testing.assert_array_equal(replay.arrays()["priority_value"], before)
