"""Actions of `Discrete(n, start)` as `env.step` takes them, wherever an agent gives actions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Discrete

import keras_dqn

X = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)


def buffer(start):
    replay = keras_dqn.ReplayBuffer(50, Box(-9, 9, (3,)), Discrete(2, start=start), seed=0)
    for step in range(9):
        replay.add(X[step], start + step % 2, 1.0, False, False, X[step - 1])
    return replay


def fitted(make_agent, start):
    agent = make_agent()
    agent.fit(
        buffer(start).dataset(4),
        steps_per_epoch=2,
        verbose=0,
        callbacks=[keras_dqn.SoftTargetUpdate()],
    )
    return agent


def test_all_that_acts_gives_actions_of_the_space(make_agent, tmp_path):
    agent = fitted(make_agent, start=7)
    expected = 7 + agent.predict(X, verbose=0).argmax(axis=1)
    assert set(expected) <= {7, 8}
    np.testing.assert_array_equal(agent.act(X), expected)
    assert agent.act(X[0]) == expected[0]
    np.testing.assert_array_equal(agent.policy()(X), expected)
    agent.export_policy(tmp_path / "policy", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "policy"))
    np.testing.assert_array_equal(exported.serve(X), expected)
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    np.testing.assert_array_equal(loaded.act(X), expected)
    assert loaded.action_start == 7


def test_an_agent_without_a_buffer_is_told(make_agent):
    agent = make_agent()
    zero_based = agent.act(X)
    agent.action_start = 3
    np.testing.assert_array_equal(agent.act(X), zero_based + 3)
    np.testing.assert_array_equal(agent.policy()(X), zero_based + 3)


def test_a_start_of_zero_is_not_in_the_config(make_agent):
    assert "action_start" not in fitted(make_agent, start=0).get_config()


def test_a_buffer_of_other_actions_is_refused(make_agent):
    agent = fitted(make_agent, start=7)
    with pytest.raises(ValueError, match="`action_start` must be that of the replay buffer's"):
        agent.fit(buffer(2).dataset(4), steps_per_epoch=2, verbose=0)
