"""`add_episode` against `add`, one step at a time."""

import gymnasium as gym
import numpy as np
import pytest
from walks import ACTIONS, SPACES, Walk, assert_draws_equal, buffer, ring

from keras_dqn import PrioritizedReplayBuffer, ReplayBuffer


def entries(observations, which):
    if isinstance(observations, dict):
        return {key: array[which] for key, array in observations.items()}
    return observations[which]


def episode(walk, num_steps, terminated):
    """Returns the arguments of `add_episode`: the next steps of one environment."""
    observations = [walk.observation(0)]
    for _ in range(num_steps):
        walk.ticks[0] += 1
        observations.append(walk.observation(0))
    if isinstance(observations[0], dict):
        keys = observations[0]
        observations = {key: np.stack([o[key] for o in observations]) for key in keys}
    else:
        observations = np.stack(observations)
    walk.restart(0)
    actions, rewards = walk.rng.integers(5, 8, num_steps), walk.rng.normal(size=num_steps)
    return observations, actions, rewards, terminated


def add_step_by_step(replay, observations, actions, rewards, terminated, env=0):
    def of_all(entry):
        if isinstance(entry, dict):
            return {key: of_all(value) for key, value in entry.items()}
        return np.stack([entry] * replay.num_envs)

    for t in range(len(rewards)):
        last = t == len(rewards) - 1
        replay.add(
            of_all(entries(observations, t)),
            of_all(actions[t]),
            of_all(rewards[t]),
            of_all(last and terminated),
            of_all(last and not terminated),
            of_all(entries(observations, t + 1)),
            where=np.arange(replay.num_envs) == env,
        )


@pytest.mark.parametrize("num_rows", [3, 12, 300])
@pytest.mark.parametrize("cls", [ReplayBuffer, PrioritizedReplayBuffer])
@pytest.mark.parametrize("kind", SPACES)
def test_an_episode_is_stored_as_add_stores_its_steps(kind, cls, num_rows):
    rng = np.random.default_rng(num_rows)
    ours, theirs = (buffer(kind, num_rows, 2, cls) for _ in range(2))
    walk = Walk(kind, 1, rng)
    for num_steps in [1, 2, 130, 5, 1, 64, 63, 65, 20]:
        arguments = episode(walk, num_steps, bool(rng.random() < 0.5))
        env = int(rng.integers(2))
        ours.add_episode(*arguments, env=env)
        add_step_by_step(theirs, *arguments, env=env)
        for e in range(2):
            assert ring(ours, e) == ring(theirs, e)
        assert len(ours) == len(theirs)
        assert_draws_equal(ours, theirs)


def test_an_end_that_is_no_termination_is_a_truncation():
    for terminated, discounts in [(True, {0.0, 0.81}), (False, {0.9, 0.81})]:
        replay = ReplayBuffer(10, gym.spaces.Discrete(9), gym.spaces.Discrete(2), seed=0)
        replay.add_episode([4, 5, 6, 7], [0, 1, 1], [1.0, 10.0, 100.0], terminated)
        observation, transition, _ = replay.sample(200, gamma=0.9, n_step=2)
        assert set(observation) == {4, 5, 6}
        found = {round(float(d), 5) for d in transition["discount"]}
        assert found == discounts
        last = observation == 6
        assert set(transition["reward"][last]) == {100.0}
        assert set(transition["next_observation"][last]) == {7}
        assert set(transition["reward"][observation == 4]) == {10.0}


def test_several_branches_are_stored_and_a_running_episode_is_cut():
    actions = gym.spaces.MultiDiscrete([2, 3])
    replay = ReplayBuffer(10, gym.spaces.Discrete(9), actions, seed=0)
    replay.add(1, [1, 2], 0.0, False, False, 2)
    replay.add_episode([4, 5, 6], [[0, 1], [1, 2]], [1.0, 1.0], True)
    observation, transition, _ = replay.sample(200, gamma=0.5)
    taken = {(int(o), *map(int, a)) for o, a in zip(observation, transition["action"], strict=True)}
    assert taken == {(1, 1, 2), (4, 0, 1), (5, 1, 2)}
    assert set(transition["next_observation"][observation == 1]) == {2}
    assert set(transition["discount"][observation == 1]) == {0.5}
    assert set(transition["discount"][observation == 5]) == {0.0}


def test_files_hold_an_episode_that_was_added(tmp_path):
    spaces = gym.spaces.Discrete(9), gym.spaces.Discrete(2)
    replay = ReplayBuffer(10, *spaces, storage="memmap", directory=tmp_path / "replay")
    replay.add_episode([4, 5, 6], [0, 1], [1.0, 1.0], True)
    loaded = ReplayBuffer.load(tmp_path / "replay")
    assert len(loaded) == 2
    observation, transition, _ = loaded.sample(50)
    pairs = zip(observation.tolist(), transition["next_observation"].tolist(), strict=True)
    assert set(pairs) == {(4, 5), (5, 6)}


def test_entries_of_a_dict_beside_a_stack_are_stored_too():
    frames = gym.spaces.Box(0, 255, (3, 2), np.uint8)
    space = gym.spaces.Dict(frames=frames, number=gym.spaces.Discrete(99))
    newest = np.array([8, 9, 10, 11, 12, 13])  # not the beginning of an episode
    stacks = np.stack([newest[t : t + 3] for t in range(4)])
    observations = {
        "frames": np.repeat(stacks[:, :, None], 2, axis=2).astype(np.uint8),
        "number": np.array([7, 8, 9, 6]),
    }
    episode = (observations, np.array([5, 6, 7]), np.array([1.0, 2.0, 3.0]), True)
    ours, theirs = (
        ReplayBuffer(20, space, ACTIONS, num_envs=2, frame_stack=3, seed=0) for _ in range(2)
    )
    for env in (1, 0):
        ours.add_episode(*episode, env=env)
        add_step_by_step(theirs, *episode, env=env)
        assert ring(ours, env) == ring(theirs, env)
    assert_draws_equal(ours, theirs)


def test_numbers_outside_a_box_are_stored_with_a_warning_at_the_call():
    replay = ReplayBuffer(10, gym.spaces.Box(-1.0, 1.0, (1,)), ACTIONS, seed=0)
    with pytest.warns(UserWarning, match="`observations` is outside the bounds") as warned:
        replay.add_episode([[0.0], [2.0], [0.5]], [5, 6], [0.0, 0.0], True)
    assert warned[0].filename == __file__
    assert set(replay.sample(50)[0].ravel()) == {0.0, 2.0}


RIGHT = {
    "observations": np.zeros((4, 2), np.float32),
    "actions": [5, 6, 7],
    "rewards": [0.0, 1.0, 2.0],
    "terminated": True,
}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"rewards": []}, ValueError, r"`rewards` must have shape \[T\]"),
        ({"rewards": 1.0}, ValueError, r"`rewards` must have shape \[T\]"),
        ({"rewards": [0.0, np.nan, 1.0]}, ValueError, "`rewards` must be finite"),
        ({"actions": [5, 6]}, ValueError, "`actions` must have 3 entries .* Received: .2."),
        ({"actions": [5, 6, 8]}, ValueError, "`actions` must be in Discrete"),
        ({"actions": [5.0, 6.0, 7.0]}, ValueError, "`actions` must be integer"),
        ({"actions": [[5], [6], [7]]}, ValueError, r"`actions` must have shape \(3,\)"),
        ({"observations": np.zeros((3, 2))}, ValueError, "`observations` must have 4 entries"),
        ({"observations": np.zeros((4, 3))}, ValueError, r"`observations` must have shape \(4, 2"),
        ({"observations": np.full((4, 2), np.inf)}, ValueError, "`observations` must be finite"),
        ({"terminated": 1}, TypeError, "`terminated` must be"),
        ({"terminated": [False, False, True]}, TypeError, "`terminated` must be"),
        ({"env": 1}, ValueError, r"`env` must be in \[0, 1\). Received: env=1"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(wrong, error, message):
    space = gym.spaces.Box(-np.inf, np.inf, (2,))
    replay = ReplayBuffer(10, space, ACTIONS, seed=0)
    replay.add_episode(**RIGHT)
    before = ring(replay, 0)
    with pytest.raises(error, match=message):
        replay.add_episode(**{**RIGHT, **wrong})
    assert ring(replay, 0) == before


def test_frames_that_do_not_follow_each_other_are_refused():
    replay = buffer("3 frames", 10, 1)
    observations = np.arange(4 * 3 * 2, dtype=np.uint16).reshape(4, 3, 2)
    with pytest.raises(ValueError, match="must hold the frames of `observation`"):
        replay.add_episode(observations, [5, 6, 7], [0.0, 0.0, 0.0], True)
    assert len(replay) == 0
