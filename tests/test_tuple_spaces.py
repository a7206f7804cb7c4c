"""Tuple observations: collected, stored, saved, trained on by a network of a list of inputs."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from envs import TupleCountingEnv, counting_fns, counting_vector
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import keras_dqn


def make_agent():
    inputs = [keras.Input((1,), name=name) for name in ("counter", "minus")]
    outputs = keras.layers.Dense(3)(keras.layers.Concatenate()(inputs))
    agent = keras_dqn.DQN(keras.Model(inputs, outputs), double=True)
    agent.compile(keras.optimizers.SGD(1e-9), steps_per_execution=4, jit_compile=False)
    return agent


def stored(replay):
    observation, transition, _ = replay.sample(3_000, gamma=0.5)
    after = transition["next_observation"]
    for counter, minus in (observation, after):
        np.testing.assert_array_equal(counter, -minus)
    columns = observation[0][:, 0], transition["reward"], transition["discount"], after[0][:, 0]
    return {tuple(map(float, row)) for row in zip(*columns, strict=True)}


def happened(env):
    return {
        (row.observation, row.reward, 0.5 * (not row.terminated), row.next_observation)
        for one in getattr(env, "envs", [env])
        for row in one.rows
    }


@pytest.mark.parametrize("mode", ["single", *[mode.value for mode in AutoresetMode]])
def test_all_that_happened_is_stored_trained_on_and_saved(mode, tmp_path):
    single = mode == "single"
    kwargs = {"cls": TupleCountingEnv}
    env = counting_fns(1, **kwargs)[0]() if single else counting_vector(mode, **kwargs)
    replay = keras_dqn.ReplayBuffer.from_env(env, 500, seed=0)
    collect = keras_dqn.CollectTransitions(
        env, replay, exploration=keras_dqn.EpsilonGreedy(0.5), warmup_steps=10, seed=0
    )
    agent = make_agent()
    evaluate = keras_dqn.EvaluatePolicy(TupleCountingEnv(), episodes=2)
    history = agent.fit(
        replay.dataset(8, gamma=0.5),
        steps_per_epoch=24,
        verbose=0,
        callbacks=[collect, keras_dqn.SoftTargetUpdate(), evaluate],
    ).history
    assert np.isfinite(history["val_return"]).all()
    assert stored(replay) == happened(env)
    replay.save(tmp_path / "replay.h5")
    loaded = keras_dqn.ReplayBuffer.load(tmp_path / "replay.h5", env=env)
    assert stored(loaded) == happened(env)
    one = (np.ones(1, np.float32), -np.ones(1, np.float32))
    many = tuple(leaf[None] for leaf in one)
    assert agent.act(one) == agent.act(many)[0] == agent.policy()(many)[0]


def pairs():
    box = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    env = gym.make("CartPole-v1")
    return gym.wrappers.TransformObservation(env, lambda o: (o, -o), gym.spaces.Tuple([box, box]))


@pytest.mark.parametrize("mode", ["single", *[mode.value for mode in AutoresetMode]])
def test_a_running_episode_is_repeated(mode):
    single = mode == "single"
    env = pairs() if single else SyncVectorEnv([pairs] * 3, autoreset_mode=mode)
    replay = keras_dqn.ReplayBuffer.from_env(env, 500, seed=0)
    collector = keras_dqn.Collector(env, replay, exploration=keras_dqn.EpsilonGreedy(1.0), seed=0)
    collector.warm_up(100)
    state = collector.get_state()
    assert type(state["stepper"]["observation"]) is tuple
    collector.warm_up(200)
    collector.set_state(state)
    np.testing.assert_equal(collector.get_state(), state)


def test_what_is_no_such_tuple_is_refused():
    replay = keras_dqn.ReplayBuffer.from_env(TupleCountingEnv(), 20)
    for wrong in (np.zeros(1), (np.zeros(1),), {"a": np.zeros(1)}):
        with pytest.raises(ValueError, match="`observation` must be a tuple of 2"):
            replay.add(wrong, 0, 1.0, False, False, (np.zeros(1), np.zeros(1)))
    assert len(replay) == 0
