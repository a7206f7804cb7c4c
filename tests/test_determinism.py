"""The same seeds give the same run to the last bit, and no global generator is drawn from."""

import itertools
import random

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dqn

COMBINATIONS = list(
    itertools.product(
        [1, 8],
        ["single", "vector"],
        ["in turn", "overlap"],
        ["uniform", "prioritized"],
        ["plain", "noisy", "implicit"],
    )
)
SOME = [
    (1, "single", "in turn", "prioritized", "plain"),
    (1, "vector", "overlap", "uniform", "noisy"),
    (1, "single", "overlap", "prioritized", "implicit"),
    (8, "vector", "in turn", "prioritized", "noisy"),
    (8, "single", "overlap", "prioritized", "plain"),
    (8, "vector", "in turn", "uniform", "implicit"),
]


def make_agent(kind, steps_per_execution, jit_compile):
    torso = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16, "relu")])
    head = keras_dqn.layers.NoisyDense(2) if kind == "noisy" else keras.layers.Dense(2)
    if kind == "implicit":
        agent = keras_dqn.ImplicitQuantileDQN(torso, head, num_cosines=8)
    else:
        agent = keras_dqn.DQN(keras.Sequential([torso, head]), double=True)
    agent.compile(
        keras.optimizers.Adam(1e-3),
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )
    return agent


def make_run(combination, seed=3, jit_compile=False):
    """Returns an agent, and a function that trains it and returns the replay and the logs."""
    steps_per_execution, shape, overlap, replay, kind = combination
    keras.utils.set_random_seed(seed)
    single = shape == "single"
    env = gym.make("CartPole-v1") if single else gym.make_vec("CartPole-v1", 3, "sync")
    agent = make_agent(kind, steps_per_execution, jit_compile)
    uniform = replay == "uniform"
    cls = keras_dqn.ReplayBuffer if uniform else keras_dqn.PrioritizedReplayBuffer
    replay = cls.from_env(env, 150, seed=seed)
    noisy = kind == "noisy"
    explore = keras_dqn.NoisyGreedy() if noisy else keras_dqn.EpsilonGreedy(0.3)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=explore,
        warmup_steps=60,
        env_steps_per_update=2,
        overlap=overlap == "overlap",
        seed=seed,
    )

    def train():
        history = agent.fit(
            replay.dataset(8, n_step=2),
            steps_per_epoch=28,  # the last execution of 8 updates has 4
            epochs=3,
            verbose=0,
            callbacks=[collect, keras_dqn.SoftTargetUpdate(0.05)],
        )
        return replay.get_state(), collect.get_state(), history.history

    return agent, train


def run(combination, **kwargs):
    agent, train = make_run(combination, **kwargs)
    replay, collect, history = train()
    optimizer = [np.array(variable) for variable in agent.optimizer.variables]
    return [*agent.get_weights(), *optimizer], replay, collect, history


def check_repeats(combination, **kwargs):
    first = run(combination, **kwargs)
    again = run(combination, **kwargs)
    np.testing.assert_equal(again, first)
    assert "episode_return" in first[-1]
    return first


def ids(combination):
    return " ".join(str(value) for value in combination)


@pytest.mark.parametrize("combination", SOME, ids=ids)
def test_the_same_seeds_give_the_same_run(combination):
    first = check_repeats(combination)
    if combination == SOME[0]:
        other = run(combination, seed=4)
        assert not np.array_equal(first[0][1], other[0][1])


@pytest.mark.hard
@pytest.mark.parametrize("jit_compile", [False, True], ids=["", "XLA"])
@pytest.mark.parametrize("combination", COMBINATIONS, ids=ids)
def test_the_same_seeds_give_the_same_run_in_all_combinations(combination, jit_compile):
    check_repeats(combination, jit_compile=jit_compile)


def global_draws(combination, trains):
    """Returns numbers that all global generators draw after a fit, or without it."""
    keras.utils.clear_session()  # Keras' own generator, which a seed does not set back
    _, train = make_run(combination)
    keras.utils.set_random_seed(5)
    tf.random.set_global_generator(tf.random.Generator.from_seed(5))
    keras.random.uniform(())
    if trains:
        train()
    return [
        random.random(),
        np.random.random(),  # noqa: NPY002
        float(tf.random.uniform(())),
        float(tf.random.get_global_generator().uniform(())),
        float(keras.random.uniform(())),
    ]


@pytest.mark.parametrize("combination", SOME[1:4], ids=ids)
def test_fit_draws_from_no_global_generator(combination):
    assert global_draws(combination, trains=True) == global_draws(combination, trains=False)
