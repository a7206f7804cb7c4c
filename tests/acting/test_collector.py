"""A collector without Keras: stepped from a plain loop, and its state."""

import json

import gymnasium as gym
import numpy as np
import pytest
from envs import CountingEnv, DrawingEnv, counting_fns, counting_vector
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from keras_dqn import (
    Boltzmann,
    Collector,
    CollectTransitions,
    EpsilonGreedy,
    Greedy,
    LinearSchedule,
    ReplayBuffer,
)
from keras_dqn.acting.environment_stepper import EnvironmentStepper
from keras_dqn.acting.episode_statistics import EpisodeStatistics
from keras_dqn.stateful import Stateful

MODES = [mode.value for mode in AutoresetMode]


class Likes:
    """A policy in NumPy that values one action most."""

    def __init__(self, action, num_actions=3):
        self.values = np.eye(num_actions)[action]
        self.calls = 0

    def action_values(self, observation):
        self.calls += 1
        return np.tile(self.values, (len(observation), 1))


def make(env, exploration=None, **kwargs):
    replay = ReplayBuffer.from_env(env, 1_000, seed=0)
    return Collector(env, replay, exploration=exploration or Greedy(), seed=0, **kwargs)


def stored(replay):
    observation, transition, _ = replay.sample(4_000, gamma=0.5)
    columns = (observation[:, 0], *(transition[k] for k in ("action", "reward", "discount")))
    after = transition["next_observation"][:, 0]
    return {tuple(float(x) for x in row) for row in zip(*columns, after, strict=True)}


def happened(env):
    envs = env.envs if isinstance(env, gym.vector.VectorEnv) else [env]
    start = int(envs[0].action_space.start)
    return {
        (row.observation, row.action - start, row.reward, 0.5 * (not row.terminated),
         row.next_observation)
        for one in envs
        for row in one.rows
    }  # fmt: skip


@pytest.mark.parametrize("start", [0, 4], ids=["start 0", "start 4"])
@pytest.mark.parametrize("mode", ["single", *MODES])
def test_a_plain_loop_stores_exactly_what_happened(mode, start):
    make_env = counting_fns(1, start=start)[0]
    env = make_env() if mode == "single" else counting_vector(mode, start=start)
    collector = make(env, EpsilonGreedy(0.5))
    collector.warm_up(10)
    taken = sum(collector.collect(Likes(2), 7) for _ in range(6))
    assert stored(collector.replay) == happened(env)
    assert collector.env_steps == len(collector.replay) == len(happened(env)) >= 10 + taken
    assert 42 - 3 < taken <= 42
    assert {row[1] for row in happened(env)} == {0.0, 1.0, 2.0}


def test_steps_that_do_not_fill_the_environments_are_credit():
    collector = make(counting_vector("SameStep"))
    assert [collector.collect(Likes(0), 2) for _ in range(6)] == [0, 3, 0 + 3, 0, 3, 3]
    policy = Likes(0)
    assert collector.grant(2) is False
    assert collector.collect(policy) == 0
    assert policy.calls == 0
    assert collector.grant(1) is True
    assert collector.collect(policy) == 3
    assert policy.calls == 1


def test_the_schedule_is_read_once_a_call():
    collector = make(CountingEnv((100,)), EpsilonGreedy(LinearSchedule(1.0, 0.0, 10)))
    epsilons = []
    for _ in range(4):
        collector.collect(Likes(0), 4)
        epsilons.append(collector.logs["epsilon"])
    assert epsilons == pytest.approx([1.0, 0.6, 0.2, 0.0])
    assert collector.logs["env_steps"] == 16


def test_values_of_another_number_of_actions_are_refused():
    with pytest.raises(ValueError, match="one value for each of the 3 actions"):
        make(CountingEnv()).collect(Likes(0, num_actions=2), 1)


def test_a_buffer_of_another_environment_is_refused():
    replay = ReplayBuffer.from_env(gym.make("CartPole-v1"), 100)
    with pytest.raises(ValueError, match=r"`replay` must be made for the environment: its `obs"):
        Collector(CountingEnv(), replay, exploration=Greedy())


# States


def as_json(state):
    """Returns a state that went through JSON, all but its arrays; refuses anything else."""
    if isinstance(state, np.ndarray):
        return state.copy()
    if isinstance(state, dict):
        return {json.loads(json.dumps(key)): as_json(value) for key, value in state.items()}
    if isinstance(state, list):
        return [as_json(value) for value in state]
    return json.loads(json.dumps(state))


@pytest.mark.parametrize("mode", ["single", *MODES])
@pytest.mark.parametrize(
    "exploration", [lambda: EpsilonGreedy(LinearSchedule(1.0, 0.1, 30)), lambda: Boltzmann(0.5)]
)
def test_a_collector_goes_on_from_its_state(mode, exploration):
    """All but the buffer is made again, and draws what would have been drawn."""

    def make_env():
        return DrawingEnv() if mode == "single" else SyncVectorEnv([DrawingEnv] * 3, **kwargs)

    def run(interrupted):
        collector = make(make_env(), exploration())
        collector.collect(Likes(1), 11)
        if interrupted:
            state = as_json(collector.get_state())
            replay = collector.replay
            collector = Collector(make_env(), replay, exploration=exploration(), seed=99)
            collector.set_state(state)
        collector.collect(Likes(1), 14)
        return collector.replay.get_state(), collector.get_state()

    kwargs = {"autoreset_mode": mode}
    np.testing.assert_equal(run(True), run(False))


def test_an_empty_buffer_is_warmed_up_again():
    collector = make(CountingEnv((100,)))
    collector.collect(Likes(0), 30)
    other = make(collector.env)
    other.warm_up(0)
    assert collector.env.seeds == [0]
    with pytest.warns(UserWarning, match="did not repeat"):
        other.set_state(collector.get_state())
    other.warm_up(10)
    assert (other.env_steps, len(other.replay)) == (40, 10)
    other.warm_up(40)
    assert (other.env_steps, len(other.replay)) == (40, 10)


def test_a_state_shares_no_memory():
    collector = make(counting_vector("SameStep"))
    collector.collect(Likes(0), 12)
    state = collector.get_state()
    kept = as_json(state)
    collector.collect(Likes(0), 12)
    np.testing.assert_equal(state, kept)


class Descending:
    """A schedule with a state of its own: each reading lowers it."""

    def __init__(self):
        self.value = 1.0

    def __call__(self, step):
        self.value /= 2
        return self.value

    def get_state(self):
        return {"value": self.value}

    def set_state(self, state):
        self.value = state["value"]


def test_a_schedules_own_state_is_kept():
    one, other = EpsilonGreedy(Descending()), EpsilonGreedy(Descending())
    one.update(5, 0)
    other.set_state(as_json(one.get_state()))
    assert other.logs == one.logs == {"epsilon": 0.25}
    for explore in (one, other):
        explore.update(6, 0)
    assert other.logs == one.logs == {"epsilon": 0.125}


class Sink:
    """What a collector needs of a buffer, and no more."""

    def __init__(self, env):
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.num_envs = 1
        self.rewards = []

    def __len__(self):
        return len(self.rewards)

    def add(self, *step, where=None):
        self.rewards.append(step[2].item())


def test_a_collector_adds_to_what_takes_transitions():
    env = CountingEnv()
    sink = Sink(env)
    collector = Collector(env, sink, exploration=Greedy(), seed=0)
    collector.warm_up(5)
    assert len(sink) == collector.env_steps == 5
    with pytest.raises(TypeError, match="`replay` must be a ReplayBuffer"):
        CollectTransitions(env, sink, exploration=Greedy())


def test_what_has_a_state_follows_the_protocol():
    import keras_dqn

    env = gym.make("CartPole-v1")
    replay = ReplayBuffer.from_env(env, 100)
    prioritized = keras_dqn.PrioritizedReplayBuffer.from_env(env, 100)
    collect = keras_dqn.CollectTransitions(env, replay, exploration=Greedy(), warmup_steps=1)
    for one in (
        collect,
        collect.collector,
        EnvironmentStepper(env),
        EpisodeStatistics(2),
        Greedy(),
        EpsilonGreedy(0.1),
        Boltzmann(1.0),
        replay,
        prioritized,
        keras_dqn.EvaluatePolicy(env),
        keras_dqn.LearningCurve("curve.png"),
        keras_dqn.SoftTargetUpdate(),
    ):
        assert isinstance(one, Stateful), one
        as_json(one.get_state())
