import importlib.util
import subprocess
import sys
from collections import namedtuple

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import shake
from envs import CountingEnv, DictCountingEnv, counter_of, counting_vector
from gymnasium.vector import AutoresetMode

import keras_dqn
from keras_dqn.integrations.tf_agents import (
    INSTALL_COMMAND,
    TFAgentsReplayBuffer,
    transitions_from_trajectories,
)

needs_tf_agents = pytest.mark.skipif(
    importlib.util.find_spec("tf_agents") is None, reason=INSTALL_COMMAND
)
# TF-Agents' and TensorFlow Probability's own, at their import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FIRST, MID, LAST = 0, 1, 2
Frames = namedtuple(
    "Frames", "step_type observation action policy_info next_step_type reward discount"
)


def frames(*rows):
    """Makes a trajectory `[1, T]` of (step_type, next_step_type, reward, discount) rows.

    Frame t has the observation [t] and the action t.
    """
    step_type, next_step_type, reward, discount = (np.array([c]) for c in zip(*rows, strict=True))
    steps = np.arange(len(rows))[None]
    return Frames(
        step_type.astype(np.int32),
        steps[..., None].astype(np.float32),
        steps.astype(np.int64),
        (),
        next_step_type.astype(np.int32),
        reward.astype(np.float32),
        discount.astype(np.float32),
    )


def transition_of(trajectory, gamma=0.5, info=True):
    element = (trajectory, ()) if info else trajectory
    dataset = transitions_from_trajectories(tf.data.Dataset.from_tensors(element), gamma)
    ((observation, transition, weight),) = dataset.as_numpy_iterator()
    return observation, transition, weight


MIDDLE = (MID, MID, 1.0, 1.0)
END = (LAST, FIRST, 99.0, 1.0)
START = (FIRST, MID, 99.0, 1.0)


@pytest.mark.parametrize(
    ("rows", "reward", "discount", "next_observation", "weight"),
    [
        # gamma 0.5: 2 + 0.5 * 4 + 0.25 * 8
        ([(FIRST, MID, 2, 1), (MID, MID, 4, 1), (MID, MID, 8, 1), MIDDLE], 6.0, 0.125, 3, 1),
        # Discounts of the environment: 2 + (0.5 * 0.5) * 4 + (0.25 * 0.5) * 8
        ([(MID, MID, 2, 0.5), (MID, MID, 4, 1), (MID, MID, 8, 1), MIDDLE], 4.0, 0.0625, 3, 1),
        ([(MID, MID, 2, 1), (MID, LAST, 4, 0), END, START], 4.0, 0.0, 2, 1),
        ([(MID, MID, 2, 1), (MID, LAST, 4, 1), END, START], 4.0, 0.25, 2, 1),
        ([(MID, LAST, 2, 1), END, START, MIDDLE], 2.0, 0.5, 1, 1),
        # The next step was not taken when the frame before the boundary was written.
        ([(MID, MID, 2, 1), END, START, MIDDLE], 2.0, 0.5, 1, 1),
        ([END, START, MIDDLE, MIDDLE], 0.0, 1.0, 0, 0),
        # Boundary frames were filtered out: no final observation, which a termination can spare.
        ([(MID, LAST, 2, 0), START, MIDDLE, MIDDLE], 2.0, 0.0, 1, 1),
        ([(MID, LAST, 2, 1), START, MIDDLE, MIDDLE], 2.0, 0.5, 1, 0),
        ([(MID, MID, 2, 1), START, MIDDLE, MIDDLE], 2.0, 0.5, 1, 0),
    ],
    ids=[
        "whole",
        "own discounts",
        "termination",
        "truncation",
        "at once",
        "reset between",
        "boundary",
        "no final observation, terminated",
        "no final observation, truncated",
        "no final observation, reset",
    ],
)
def test_windows_of_three_steps_by_hand(rows, reward, discount, next_observation, weight):
    observation, transition, weights = transition_of(frames(*rows))
    assert observation.tolist() == [[0.0]]
    assert transition["action"].tolist() == [0]
    assert transition["action"].dtype == np.int32
    assert weights.tolist() == [weight]
    assert transition["discount"].tolist() == [discount]
    if weight:
        assert transition["reward"].tolist() == [reward]
        assert transition["next_observation"].tolist() == [[next_observation]]


def test_one_step_of_a_batch_without_info():
    # Two rows: a truncation, which bootstraps from frame 1, and a boundary.
    both = [frames((MID, LAST, 2, 1), END), frames(END, START)]
    trajectory = tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *both)
    _, transition, weight = transition_of(trajectory, gamma=0.9, info=False)
    np.testing.assert_allclose(transition["discount"], [0.9, 1.0])
    assert transition["reward"][0] == 2.0
    assert transition["next_observation"][0] == 1.0
    assert weight.tolist() == [1.0, 0.0]


def test_what_is_no_trajectory_is_refused():
    numbers = tf.data.Dataset.range(3)
    with pytest.raises(ValueError, match="`dataset` must have TF-Agents trajectories"):
        transitions_from_trajectories(numbers, 0.9)
    one_frame = tf.data.Dataset.from_tensors(frames(MIDDLE))
    with pytest.raises(ValueError, match="at least 2 frames"):
        transitions_from_trajectories(one_frame, 0.9)
    unbatched = tf.data.Dataset.from_tensors(frames(MIDDLE, MIDDLE)).unbatch()
    with pytest.raises(ValueError, match=r"\[B, T, ...\]"):
        transitions_from_trajectories(unbatched, 0.9)
    with pytest.raises(ValueError, match="`gamma` must be in"):
        transitions_from_trajectories(tf.data.Dataset.from_tensors(frames(MIDDLE, MIDDLE)), 1.1)


def rows_after(env, n_step, gamma):
    """Returns {observation: (action, reward, discount, next observation)} by a slow loop."""
    expected = {}
    for i, first in enumerate(env.rows):
        reward = 0.0
        for m, row in enumerate(env.rows[i : i + n_step], start=1):
            reward += gamma ** (m - 1) * row.reward
            if row.terminated or row.truncated:
                break
        discount = 0.0 if row.terminated else gamma**m
        complete = m == n_step or row.terminated or row.truncated
        if complete:
            expected[first.observation] = (first.action, reward, discount, row.next_observation)
    return expected


def drawn_rows(replay, n_step, gamma, batch_size=2_000):
    """Returns what `rows_after` does, of what is drawn."""
    observation, transition, weight = replay.sample(batch_size, gamma=gamma, n_step=n_step)
    assert weight.tolist() == [1.0] * batch_size  # no boundary frames
    drawn = {}
    for i in range(batch_size):
        drawn[int(counter_of(observation)[i])] = (
            int(transition["action"][i]),
            float(transition["reward"][i]),
            float(transition["discount"][i]),
            int(counter_of(transition["next_observation"])[i]),
        )
    return drawn


def collect(env, replay, steps):
    keras_dqn.CollectTransitions(
        env, replay, exploration=keras_dqn.Greedy(), warmup_steps=steps, seed=0
    ).warm_up()


def assert_equal_rows(drawn, expected):
    assert drawn.keys() <= expected.keys()
    for observation, row in drawn.items():
        assert row == pytest.approx(expected[observation], rel=1e-6), observation


def test_several_actions_at_once_are_refused():
    spaces = gym.spaces.Box(0, 1, (1,)), gym.spaces.MultiDiscrete([2, 3])
    with pytest.raises(
        ValueError, match=r"`action_space` must be gymnasium\.spaces\.Discrete: traj"
    ):
        TFAgentsReplayBuffer(100, *spaces)


@needs_tf_agents
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("cls", [CountingEnv, DictCountingEnv])
def test_every_transition_of_one_environment_can_be_drawn(cls, n_step):
    env = cls(lengths=(3, 1, 4), ends=("truncated", "terminated"), start=7)
    replay = TFAgentsReplayBuffer.from_env(env, 1_000)
    collect(env, replay, 80)
    drawn = drawn_rows(replay, n_step, 0.9)
    expected = rows_after(env, n_step, 0.9)
    expected = {key: (action - 7, *rest) for key, (action, *rest) in expected.items()}
    assert_equal_rows(drawn, expected)
    # TF-Agents draws a start only if n more frames follow it.
    newest = [row.observation for row in env.rows[-n_step:]]
    assert drawn.keys() >= expected.keys() - set(newest)


@needs_tf_agents
@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_vectors_of_every_autoreset_mode(mode):
    env = counting_vector(mode)
    replay = TFAgentsReplayBuffer.from_env(env, 3_000)
    collect(env, replay, 300)
    for n_step in (1, 3):
        drawn = drawn_rows(replay, n_step, 0.9, batch_size=20_000)
        whole = {}
        for sub_env in env.envs:
            whole |= rows_after(sub_env, n_step, 0.9)
        assert len(drawn) > 0.9 * len(whole)
        if mode is AutoresetMode.NEXT_STEP or n_step == 1:
            assert_equal_rows(drawn, whole)
        else:  # cut where another environment ended, as at a truncation: 1, 2 or 3 steps
            shorter = [rows_after(sub_env, m, 0.9) for sub_env in env.envs for m in (1, 2, 3)]
            for observation, row in drawn.items():
                assert any(
                    row == pytest.approx(rows.get(observation, ()), rel=1e-6)
                    for rows in shorter
                    if observation in rows
                ), observation


@needs_tf_agents
def test_a_reset_in_the_middle_ends_a_window():
    space = gym.spaces.Box(-np.inf, np.inf, (1,))
    replay = TFAgentsReplayBuffer(100, space, gym.spaces.Discrete(2))
    replay.add([0.0], 1, 1.0, False, False, [1.0])
    replay.add([5.0], 0, 2.0, False, False, [6.0])  # somebody has reset the environment
    for i in range(6, 9):
        replay.add([i], 0, 2.0, False, False, [i + 1])
    drawn = drawn_rows(replay, 2, 0.5)
    assert drawn[0] == (1, 1.0, 0.5, 1)
    assert drawn[5] == (0, 3.0, 0.25, 7)


@needs_tf_agents
def test_a_ring_that_has_been_round():
    env = CountingEnv(lengths=(4,), ends=("truncated",))
    replay = TFAgentsReplayBuffer.from_env(env, 20)
    collect(env, replay, 20)
    for _ in range(5):
        collect(env, replay, 20)
    assert len(replay) == 20
    drawn = drawn_rows(replay, 2, 0.9)
    assert_equal_rows(drawn, rows_after(env, 2, 0.9))
    assert min(drawn) >= env.rows[-20].observation


@needs_tf_agents
def test_an_existing_buffer_filled_by_tf_agents():
    from tf_agents.replay_buffers.tf_uniform_replay_buffer import TFUniformReplayBuffer
    from tf_agents.trajectories import from_transition, policy_step, time_step

    env = CountingEnv(lengths=(3, 2), ends=("truncated", "terminated"))
    own = TFAgentsReplayBuffer.from_env(env, 100).replay_buffer
    theirs = TFUniformReplayBuffer(own.data_spec, batch_size=1, max_length=100)

    def batched(step):
        return tf.nest.map_structure(lambda leaf: tf.convert_to_tensor(leaf)[None], step)

    before = time_step.restart(env.reset()[0])
    for action in [2, 0, 1, 1, 0] * 8:
        observation, reward, terminated, truncated, _ = env.step(action)
        if terminated:
            after = time_step.termination(observation, np.float32(reward))
        elif truncated:
            after = time_step.truncation(observation, np.float32(reward), np.float32(1.0))
        else:
            after = time_step.transition(observation, np.float32(reward))
        taken = policy_step.PolicyStep(np.int64(action))
        theirs.add_batch(batched(from_transition(before, taken, after)))
        before = after
        if terminated or truncated:
            before = time_step.restart(env.reset()[0])
            theirs.add_batch(batched(from_transition(after, taken, before)))
    replay = TFAgentsReplayBuffer.from_env(env, replay_buffer=theirs)
    assert replay.replay_buffer is theirs
    assert replay.capacity == 100
    drawn = drawn_rows(replay, 2, 0.9)
    expected = rows_after(env, 2, 0.9)
    assert_equal_rows(drawn, expected)
    assert len(drawn) >= len(expected) - 2
    # The same through the function alone.
    dataset = theirs.as_dataset(sample_batch_size=500, num_steps=3)
    observation, transition, weight = next(iter(transitions_from_trajectories(dataset, 0.9)))
    assert 0.0 < weight.numpy().mean() < 1.0  # boundary frames are among them
    for i in np.flatnonzero(weight):
        action, reward, *_ = expected[int(observation[i, 0])]
        assert transition["action"][i] == action
        assert float(transition["reward"][i]) == pytest.approx(reward)


@needs_tf_agents
@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_fit_collects_and_trains(make_network, steps_per_execution):
    env = counting_vector(AutoresetMode.NEXT_STEP)
    replay = TFAgentsReplayBuffer.from_env(env, 3_000)
    agent = keras_dqn.DQN(make_network(inputs=1, actions=3), double=True)
    agent.compile(keras.optimizers.Adam(1e-3), steps_per_execution=steps_per_execution)
    shake(agent.target_network)
    before = agent.network.get_weights()
    history = agent.fit(
        replay.dataset(8, gamma=0.9, n_step=2),
        epochs=2,
        steps_per_epoch=12,
        verbose=0,
        callbacks=[
            keras_dqn.CollectTransitions(
                env, replay, exploration=keras_dqn.EpsilonGreedy(0.5), warmup_steps=60, seed=0
            ),
            keras_dqn.SoftTargetUpdate(0.1),
        ],
    ).history
    assert history["env_steps"][-1] >= 60 + 24 - 3
    assert np.isfinite(history["loss"]).all()
    assert int(agent.update_count) == 24
    assert any((a != b).any() for a, b in zip(before, agent.network.get_weights(), strict=True))


@needs_tf_agents
def test_rows_of_weight_zero_do_not_train(make_network):
    """All frames are boundaries: a batch of them leaves the network as it is."""
    replay = TFAgentsReplayBuffer(100, gym.spaces.Box(-9, 9, (3,)), gym.spaces.Discrete(2))
    for _ in range(2):
        replay._add_boundary([np.ones((1, 3), np.float32)])
    agent = keras_dqn.DQN(make_network())
    agent.compile(keras.optimizers.SGD(0.1))
    shake(agent.target_network)
    before = agent.network.get_weights()
    agent.fit(replay.dataset(4), steps_per_epoch=2, verbose=0, callbacks=[
        keras_dqn.SoftTargetUpdate()
    ])  # fmt: skip
    for weight, then in zip(agent.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, then)


@needs_tf_agents
def test_arrays_that_are_written_again_are_copied():
    replay = TFAgentsReplayBuffer(100, gym.spaces.Box(-99, 99, (1,)), gym.spaces.Discrete(2))
    next_observation = np.zeros(1, np.float32)
    for i in range(10):
        next_observation[0] = i + 1
        replay.add(np.float32([i]), 0, 1.0, False, False, next_observation)
    drawn = drawn_rows(replay, 1, 0.9)
    assert {key: row[-1] for key, row in drawn.items()} == {i: i + 1 for i in range(9)}


@needs_tf_agents
def test_trajectories_are_drawn_when_they_are_asked_for():
    replay = TFAgentsReplayBuffer(2, gym.spaces.Box(-99, 99, (1,)), gym.spaces.Discrete(2))
    trajectories = replay.replay_buffer.as_dataset(sample_batch_size=4, num_steps=2)
    batches = iter(transitions_from_trajectories(trajectories, 0.9))
    for i in range(8):  # two frames are stored, so that each `add` replaces the only transition
        replay.add([i], 0, 1.0, False, False, [i + 1])
        if i:
            observation, _, _ = next(batches)
            assert observation.numpy().ravel().tolist() == [i - 1.0] * 4


@needs_tf_agents
def test_a_refused_step_changes_nothing():
    replay = TFAgentsReplayBuffer(100, gym.spaces.Box(-9, 9, (1,)), gym.spaces.Discrete(2))
    replay.add([0.0], 1, 1.0, False, False, [1.0])
    with pytest.raises(ValueError, match="`reward` must be finite"):
        replay.add([1.0], 1, np.nan, False, False, [2.0])
    with pytest.raises(ValueError, match="`action` must be in"):
        replay.add([1.0], 2, 1.0, False, False, [2.0])
    assert len(replay) == 1
    with pytest.raises(RuntimeError, match="no complete window of 1 steps"):
        replay.sample(4)
    with pytest.raises(ValueError, match="`n_step` must be at least 1"):
        replay.dataset(4, n_step=0)


@needs_tf_agents
def test_arguments_that_do_not_fit_are_refused():
    box, discrete = gym.spaces.Box(-9, 9, (1,)), gym.spaces.Discrete(2)
    with pytest.raises(ValueError, match="Exactly one of `capacity` and `replay_buffer`"):
        TFAgentsReplayBuffer(None, box, discrete)
    with pytest.raises(ValueError, match="`action_space` must be"):
        TFAgentsReplayBuffer(10, box, box)
    other = TFAgentsReplayBuffer(10, gym.spaces.Box(-9, 9, (2,)), discrete).replay_buffer
    with pytest.raises(ValueError, match="`replay_buffer` must hold trajectories"):
        TFAgentsReplayBuffer(None, box, discrete, replay_buffer=other)
    integers = gym.spaces.Box(-9, 9, (1,), np.int32)
    other = TFAgentsReplayBuffer(10, integers, discrete).replay_buffer
    with pytest.raises(ValueError, match="observations of the space's dtypes"):
        TFAgentsReplayBuffer(None, box, discrete, replay_buffer=other)
    other = TFAgentsReplayBuffer(10, box, gym.spaces.Discrete(3)).replay_buffer
    with pytest.raises(ValueError, match="`replay_buffer` must hold 0-based actions"):
        TFAgentsReplayBuffer(None, box, discrete, replay_buffer=other)


def test_without_tf_agents_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_agents", None)
    monkeypatch.setitem(sys.modules, "tf_agents.specs", None)
    with pytest.raises(ImportError, match="no-deps tf-agents"):
        TFAgentsReplayBuffer(10, gym.spaces.Box(-9, 9, (1,)), gym.spaces.Discrete(2))


def test_importing_keras_dqn_imports_neither_tf_agents_nor_another_keras():
    code = (
        "import sys, keras_dqn, keras_dqn.integrations.tf_agents;"
        "print([m for m in sys.modules if m.startswith(('tf_agents', 'tf_keras',"
        " 'tensorflow_probability'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
