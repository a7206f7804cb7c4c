"""Every n-step row against a slow oracle that keeps the whole history of each environment."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_dqn.replay.n_step import TERMINATED, TRUNCATED, windows
from keras_dqn.replay.replay_buffer import ReplayBuffer

NUMBERED = gym.spaces.Box(0, 2**24, (2,), np.float32)  # [unique number, environment]
DRAWS_PER_START = 200


@dataclass
class Episode:
    observations: list
    actions: list = field(default_factory=list)
    rewards: list = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    cut: bool = False

    @property
    def ended(self):
        return self.terminated or self.truncated or self.cut


def drawable_rows(episodes, rows_stored, gamma, n_step):
    """Returns {start: (action, reward, discount, next observation)} of one environment."""
    num_rows = sum(len(e.actions) + e.ended for e in episodes)
    rows, position = {}, 0
    for episode in episodes:
        length = len(episode.actions)
        for t in range(length):
            if position + t < num_rows - rows_stored:
                continue
            m = min(n_step, length - t)
            if m < n_step and not episode.ended:
                continue
            reward = sum(gamma**k * episode.rewards[t + k] for k in range(m))
            terminal = episode.terminated and t + m == length
            rows[episode.observations[t]] = (
                episode.actions[t],
                reward,
                0.0 if terminal else gamma**m,
                episode.observations[t + m],
            )
        position += length + episode.ended
    return rows


def live(replay, num_calls, seed):
    """Steps pretended environments, adding to the buffer; returns their episodes."""
    rng = np.random.default_rng(seed)
    num_envs = replay.num_envs
    numbers = iter(range(2**24))
    histories = [[Episode([next(numbers)])] for _ in range(num_envs)]
    skipped = rng.choice([0.0, 0.2, 0.9], size=num_envs)
    ended, reset = rng.choice([0.02, 0.3]), rng.choice([0.0, 0.1])
    for _ in range(num_calls):
        where = rng.random(num_envs) >= skipped
        before, after = np.zeros((2, num_envs, 2), np.float32)
        action, reward = rng.integers(3, size=num_envs), rng.normal(size=num_envs)
        terminated, truncated = rng.random((2, num_envs)) < ended
        for e in np.flatnonzero(where):
            episode = histories[e][-1]
            if episode.ended or rng.random() < reset:
                episode.cut = not episode.ended and len(episode.actions) > 0
                episode = Episode([next(numbers)])
                histories[e].append(episode)
            before[e], after[e] = (episode.observations[-1], e), (next(numbers), e)
            episode.actions.append(int(action[e]))
            episode.rewards.append(float(reward[e]))
            episode.observations.append(int(after[e, 0]))
            episode.terminated, episode.truncated = terminated[e], truncated[e]
        replay.add(before, action, reward, terminated, truncated, after, where=where)
    return histories


def assert_draws_exactly(replay, histories, gamma, n_step):
    per_env = replay.capacity // replay.num_envs
    expected, env_of = {}, {}
    for e, history in enumerate(histories):
        rows = drawable_rows(history, per_env, gamma, n_step)
        expected |= rows
        env_of |= dict.fromkeys(rows, e)
    if not expected:
        with pytest.raises(RuntimeError, match=r"empty|no complete window"):
            replay.sample(1, gamma=gamma, n_step=n_step)
        return
    observation, transition, _ = replay.sample(
        DRAWS_PER_START * len(expected), gamma=gamma, n_step=n_step
    )
    starts = observation[:, 0].astype(int).tolist()
    assert set(starts) == set(expected)
    action, reward, discount, following = zip(*(expected[s] for s in starts), strict=True)
    np.testing.assert_array_equal(transition["action"], action)
    np.testing.assert_allclose(transition["reward"], reward, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(transition["discount"], discount, rtol=1e-6)
    np.testing.assert_array_equal(transition["next_observation"][:, 0], following)
    env = [env_of[s] for s in starts]
    np.testing.assert_array_equal(observation[:, 1], env)
    np.testing.assert_array_equal(transition["next_observation"][:, 1], env)
    assert_uniform(Counter(starts).values())


def assert_uniform(counts):
    chi_square = sum((c - DRAWS_PER_START) ** 2 / DRAWS_PER_START for c in counts)
    freedom = len(counts) - 1
    assert chi_square < freedom + 8 * np.sqrt(2 * freedom) + 20


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    num_envs=st.sampled_from([1, 2, 5]),
    rows=st.sampled_from([1, 2, 3, 7, 20, 60]),
    spare=st.integers(0, 1),
    num_calls=st.integers(0, 80),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    n_step=st.sampled_from([1, 2, 3, 5, 12]),
    seed=st.integers(0, 10_000),
)
def test_rows_are_those_of_the_oracle(num_envs, rows, spare, num_calls, gamma, n_step, seed):
    capacity = num_envs * rows + spare * (num_envs - 1)  # what does not divide is not used
    replay = ReplayBuffer(capacity, NUMBERED, gym.spaces.Discrete(3), num_envs=num_envs, seed=seed)
    histories = live(replay, num_calls, seed)
    assert_draws_exactly(replay, histories, gamma, n_step)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("n_step", [1, 3])
def test_rows_are_those_of_the_oracle_when_most_windows_are_complete(num_envs, n_step):
    replay = ReplayBuffer(600, NUMBERED, gym.spaces.Discrete(3), num_envs=num_envs, seed=1)
    histories = live(replay, 1_000, seed=4)
    assert_draws_exactly(replay, histories, 0.9, n_step)


def episode_of(num_steps, terminated, truncated, capacity=10):
    """Rewards 1, 10, 100, ... on the observations 0, 1, 2, ..."""
    replay = ReplayBuffer(capacity, gym.spaces.Discrete(100), gym.spaces.Discrete(2), seed=0)
    for t in range(num_steps):
        last = t == num_steps - 1
        replay.add(t, 0, 10.0**t, last and terminated, last and truncated, t + 1)
    return replay


def drawn(replay, n_step, gamma=0.5):
    observation, transition, _ = replay.sample(500, gamma=gamma, n_step=n_step)
    names = ("reward", "discount", "next_observation")
    rows = zip(*(transition[name].tolist() for name in names), strict=True)
    return dict(zip(observation.tolist(), rows, strict=True))


@pytest.mark.parametrize(
    ("terminated", "truncated", "bootstrap"),
    [(True, False, 0), (False, True, 1), (True, True, 0)],
    ids=["terminated", "truncated", "both"],
)
def test_windows_end_with_the_episode(terminated, truncated, bootstrap):
    replay = episode_of(3, terminated, truncated)
    # 1 + 10 / 2, then 10 + 100 / 2, then 100 alone; gamma^2, gamma^2, gamma.
    assert drawn(replay, n_step=2) == {
        0: (6.0, 0.25, 2),
        1: (60.0, 0.25 * bootstrap, 3),
        2: (100.0, 0.5 * bootstrap, 3),
    }


def test_running_episode_gives_only_whole_windows():
    assert drawn(episode_of(4, False, False), n_step=3) == {
        0: (1 + 5 + 25.0, 0.125, 3),
        1: (10 + 50 + 250.0, 0.125, 4),
    }


def test_window_longer_than_the_episode_takes_all_of_it():
    assert drawn(episode_of(2, True, False), n_step=50) == {0: (6.0, 0.0, 2), 1: (10.0, 0.0, 2)}


def test_unforeseen_reset_ends_windows_like_a_truncation():
    replay = episode_of(2, False, False)
    replay.add(50, 0, 1000.0, False, False, 51)
    assert drawn(replay, n_step=2) == {0: (6.0, 0.25, 2), 1: (10.0, 0.5, 2)}
    assert drawn(replay, n_step=1)[50] == (1000.0, 0.5, 51)


def test_windows_never_read_past_the_end():
    # Absurd numbers where nobody may look: after the end and in another ring.
    flags = np.array([0, TRUNCATED, 0, TERMINATED, 0, 0], np.uint8)
    rewards = np.array([1.0, 2.0, 99.0, 98.0, 97.0, 96.0], np.float32)
    at = [np.array([value], np.int64) for value in (0, 0, 2)]
    window = windows(flags, rewards, *at, ring_size=3, gamma=0.5, n_step=3)
    assert [column.item() for column in window] == [True, 2.0, 0.25, 2]


def test_the_cost_of_n_ends_with_the_episodes():
    """n = 1,000 on episodes of 20 steps once took 528 times as long as n = 1."""
    space, actions = gym.spaces.Box(-1.0, 1.0, (1,)), gym.spaces.Discrete(2)
    replay = ReplayBuffer(5_000, space, actions, seed=0)
    for step in range(5_000):
        replay.add(np.zeros(1), 0, 1.0, step % 20 == 19, False, np.zeros(1))

    def seconds(n_step):
        best = math.inf
        for _ in range(5):
            start = time.perf_counter()
            replay.sample(256, n_step=n_step)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(1_000) < 3 * seconds(20)
