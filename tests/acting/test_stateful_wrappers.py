import gymnasium as gym
import pytest
from envs import CountingEnv
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeLimit
from gymnasium.wrappers import vector as vector_wrappers

from keras_dqn.acting.stateful_wrappers import stateful_wrappers


def both():
    return NormalizeReward(TimeLimit(NormalizeObservation(CountingEnv()), 5))


@pytest.mark.parametrize(
    ("make_env", "names"),
    [
        (CountingEnv, []),
        (lambda: gym.make("CartPole-v1"), []),
        (both, ["NormalizeReward", "NormalizeObservation"]),
        (lambda: SyncVectorEnv([CountingEnv] * 2), []),
        (lambda: SyncVectorEnv([both] * 2), ["NormalizeReward", "NormalizeObservation"]),
        (
            lambda: vector_wrappers.RecordEpisodeStatistics(
                vector_wrappers.NormalizeObservation(SyncVectorEnv([CountingEnv, both]))
            ),
            ["NormalizeObservation", "NormalizeReward"],
        ),
        (
            lambda: vector_wrappers.NormalizeReward(SyncVectorEnv([CountingEnv] * 2)),
            ["NormalizeReward"],
        ),
    ],
)
def test_wrappers_with_a_state_are_named(make_env, names):
    assert stateful_wrappers(make_env()) == names


def test_the_environments_of_other_processes_are_not_seen():
    env = vector_wrappers.NormalizeReward(AsyncVectorEnv([both]))
    assert stateful_wrappers(env) == ["NormalizeReward"]
    env.close()
