"""The true return of episodes whose rewards are clipped for training."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import ClipReward, RecordEpisodeStatistics
from gymnasium.wrappers import vector as vector_wrappers

from keras_dqn import EpsilonGreedy, ReplayBuffer
from keras_dqn.acting.collector import Collector
from keras_dqn.acting.episode_statistics import EpisodeStatistics
from keras_dqn.acting.recorded_returns import recorded_return, recorded_returns


class Rich(gym.Env):
    """An episode of `length` steps; the rewards are 5, 6, 7 and so on."""

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), 4.0 + self.t, self.t == self.length, False, {}


class Lives(gym.Wrapper):
    """Ends the episode after each second step, but a game goes on until it is over."""

    def reset(self, *, seed=None, options=None):
        if getattr(self, "over", True):
            return self.env.reset(seed=seed, options=options)
        return self.last, {}

    def step(self, action):
        self.last, reward, self.over, truncated, info = self.env.step(action)
        return self.last, reward, self.over or self.unwrapped.t % 2 == 0, truncated, info


def clipped(length):
    return ClipReward(RecordEpisodeStatistics(Rich(length)), -1, 1)


def collected(env, num_steps, num_envs=1):
    replay = ReplayBuffer.from_env(env, 1_000)
    collector = Collector(env, replay, exploration=EpsilonGreedy(1.0), seed=0)
    collector.collect_at_random(num_steps * num_envs)
    assert replay.sample(50)[1]["reward"].max() == 1.0  # what is learned from
    return collector


def test_a_single_environment():
    collector = collected(clipped(3), 7)
    assert collector.statistics.means == {"episode_return": 5 + 6 + 7, "episode_length": 3}
    assert collector.episodes == 2


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_environments_of_a_vector_environment(mode, vector):
    env = vector([lambda: clipped(3), lambda: clipped(4)], autoreset_mode=mode)
    collector = collected(env, 6, num_envs=2)
    env.close()
    # Each takes 6 steps: the first two episodes, the second one.
    expected = {
        "episode_return": (2 * (5 + 6 + 7) + (5 + 6 + 7 + 8)) / 3,
        "episode_length": (3 + 3 + 4) / 3,
    }
    assert collector.statistics.means == pytest.approx(expected)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_wrapper_around_a_vector_environment(mode):
    base = SyncVectorEnv([lambda: Rich(3), lambda: Rich(3)], autoreset_mode=mode)
    env = vector_wrappers.ClipReward(vector_wrappers.RecordEpisodeStatistics(base), -1, 1)
    collector = collected(env, 5, num_envs=2)
    assert collector.statistics.means["episode_return"] == 5 + 6 + 7


def test_a_lost_life_ends_no_game():
    collector = collected(ClipReward(Lives(RecordEpisodeStatistics(Rich(5))), -1, 1), 5)
    collector.statistics.start_epoch()
    collector.collect_at_random(10)  # two games
    assert collector.statistics.means == {"episode_return": 5 + 6 + 7 + 8 + 9, "episode_length": 5}


def test_an_outer_truncation_ends_an_episode():
    """Episodes of 3 steps have a record, those that are cut after 4 steps have none."""

    class Alternating(Rich):
        def reset(self, **kwargs):
            self.length = 3 if self.length == 100 else 100
            return super().reset(**kwargs)

    env = gym.wrappers.TimeLimit(RecordEpisodeStatistics(Alternating(100)), 4)
    replay = ReplayBuffer.from_env(env, 100)
    collector = Collector(env, replay, exploration=EpsilonGreedy(1.0), seed=0)
    collector.collect_at_random(7)
    expected = (5 + 6 + 7 + 5 + 6 + 7 + 8) / 2
    assert collector.statistics.means == {"episode_return": expected, "episode_length": 3.5}
    assert collector.episodes == 2


def test_without_a_record_rewards_are_summed():
    collector = collected(ClipReward(Rich(3), -1, 1), 3)
    assert collector.statistics.means == {"episode_return": 3, "episode_length": 3}


def test_a_continued_run_knows_that_there_are_records():
    env = ClipReward(Lives(RecordEpisodeStatistics(Rich(5))), -1, 1)
    state = collected(env, 5).statistics.get_state()
    continued = EpisodeStatistics(1)
    continued.set_state(state)
    assert continued.get_state()["has_records"]
    del state["has_records"]  # of an earlier version
    continued.set_state(state)
    assert not continued.get_state()["has_records"]


@pytest.mark.parametrize("other", [{}, {"episode": 7}, {"episode": {"r": 1.0}}])
def test_other_infos_are_no_records(other):
    assert recorded_return(other) is None
    assert recorded_returns(other, np.ones(2, bool)) is None
    assert recorded_returns({"final_info": other}, np.ones(2, bool)) is None
