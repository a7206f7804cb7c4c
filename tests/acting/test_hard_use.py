"""Environments that fail: the error is the environment's own, and no half transition is stored."""

import functools
import os
import signal
import traceback
import warnings

import keras
import numpy as np
import pytest
from envs import CountingEnv, counting_fns
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from keras_dqn import (
    DQN,
    Collector,
    CollectTransitions,
    EpsilonGreedy,
    ReplayBuffer,
    SoftTargetUpdate,
)

SHAPES = ["single", "vector"]


class Broken(Exception):
    pass


class FailsOnce(CountingEnv):
    """Fails in one step: after the environment has changed, before it has told what happened."""

    error: type[BaseException] = Broken
    fails_at = 30

    def step(self, action):
        if len(self.rows) == self.fails_at:
            self.counter += 1
            self.fails_at = -1
            self.break_down()
        return super().step(action)

    def break_down(self):
        raise self.error("the simulator is gone")


class Interrupted(FailsOnce):
    error = KeyboardInterrupt


def make_env(shape, cls=FailsOnce):
    fns = counting_fns(2, cls)
    fns[1] = counting_fns(2)[1]
    return fns[0]() if shape == "single" else SyncVectorEnv(fns)


def collector(env, **kwargs):
    replay = ReplayBuffer.from_env(env, 1_000, seed=0)
    return CollectTransitions(
        env, replay, exploration=EpsilonGreedy(0.5), warmup_steps=20, seed=0, **kwargs
    )


@functools.cache
def standing_agent():
    agent = DQN(keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)]))
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    agent.network.set_weights([np.zeros((1, 3)), np.arange(3.0)])
    return agent


def fit(agent, collect):
    agent.fit(
        collect.replay.dataset(4, gamma=0.5),
        steps_per_epoch=100,
        verbose=0,
        callbacks=[collect, SoftTargetUpdate()],
    )


def check_stored(env, replay):
    """Checks that each stored transition has happened, and nearly all that have are stored."""
    happened = {
        (row.observation, row.action, row.reward, 0.5 * (not row.terminated), row.next_observation)
        for one in (env.envs if isinstance(env, SyncVectorEnv) else [env])
        for row in one.rows
    }
    observation, transition, _ = replay.sample(5_000, gamma=0.5)
    columns = (observation, *(transition[name] for name in ("action", "reward", "discount")))
    columns = [column.ravel().tolist() for column in (*columns, transition["next_observation"])]
    stored = set(zip(*columns, strict=True))
    assert stored <= happened
    assert len(stored) == len(replay) >= len(happened) - 1


@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlap"])
@pytest.mark.parametrize("cls", [FailsOnce, Interrupted])
@pytest.mark.parametrize("shape", SHAPES)
def test_fit_ends_with_the_environments_error_and_can_go_on(shape, cls, overlap):
    env = make_env(shape, cls)
    collect, agent = collector(env, overlap=overlap), standing_agent()
    agent.update_count.assign(0)  # a new collector of a trained agent would warn
    with pytest.raises(cls.error, match="the simulator is gone") as caught:
        fit(agent, collect)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-2:] == ["step", "break_down"]
    check_stored(env, collect.replay)
    assert 20 < collect.env_steps == len(collect.replay)
    before, episodes = collect.env_steps, [one.episode for one in getattr(env, "envs", [env])]
    fit(agent, collect)
    check_stored(env, collect.replay)
    assert collect.env_steps >= before + 100
    first = getattr(env, "envs", [env])[0]
    assert first.episode > episodes[0]


class FailsToConnect(FailsOnce):
    error = ConnectionResetError


class NoPolicy:
    def action_values(self, observation):
        return np.zeros((len(observation), 3))


@pytest.fixture
def asynchronous():
    """Gives a function that makes a collector of two environments in processes of their own."""
    envs = []

    def make(cls, **kwargs):
        fns = counting_fns(2, cls)
        fns[1] = counting_fns(2)[1]
        envs.append(AsyncVectorEnv(fns, **kwargs))
        replay = ReplayBuffer.from_env(envs[-1], 1_000, seed=0)
        return Collector(envs[-1], replay, exploration=EpsilonGreedy(0.5), seed=0)

    yield make
    for env in envs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env.close(terminate=True)


def check_whole(replay):
    """Checks each transition by its numbers alone: the environments are in other processes."""
    observation, transition, _ = replay.sample(2_000, gamma=0.5)
    np.testing.assert_array_equal(transition["next_observation"], observation + 1)
    np.testing.assert_array_equal(transition["reward"], 1.0 + 10.0 * transition["action"])
    assert len(np.unique(observation)) == len(replay)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("shared_memory", [True, False], ids=["shared", "pipes"])
def test_a_killed_worker_is_named_at_once(asynchronous, shared_memory):
    collect = asynchronous(CountingEnv, shared_memory=shared_memory)
    collect.collect(NoPolicy(), 40)
    before = len(collect.replay)
    os.kill(collect.env.processes[1].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"A worker process of `env` has .* code -9.*") as caught:
        collect.collect(NoPolicy(), 40)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, (EOFError, ConnectionError))
    assert len(collect.replay) == before == collect.env_steps
    check_whole(collect.replay)


@pytest.mark.parametrize("cls", [FailsOnce, FailsToConnect])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium's, with the worker's traceback
def test_a_workers_error_is_its_own(asynchronous, cls):
    collect = asynchronous(cls)
    with pytest.raises(cls.error, match="the simulator is gone"):
        collect.collect(NoPolicy(), 100)
    check_whole(collect.replay)
