"""The quick start, whole: with checkpoints it ends exactly as without."""

import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn


def quick_start(seed, callbacks=()):
    """Trains as `examples/cartpole.py` does; returns the final state and the history."""
    keras.utils.set_random_seed(seed)
    env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    agent = keras_dqn.DQN(keras_dqn.networks.mlp(env.single_observation_space, 2), double=True)
    rate = keras.optimizers.schedules.PolynomialDecay(1e-3, 49_000, 0.0)
    agent.compile(keras.optimizers.Adam(rate, clipnorm=10.0), steps_per_execution=64)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=seed)
    exploration = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000))
    collect = keras_dqn.CollectTransitions(
        env, replay, exploration=exploration, max_env_steps=50_000, seed=seed
    )
    test_env = gym.make_vec("CartPole-v1", num_envs=10, vectorization_mode="sync")
    evaluate = keras_dqn.EvaluatePolicy(test_env, episodes=10, seed=seed + 1_000)
    history = agent.fit(
        replay.dataset(batch_size=64, gamma=0.99, n_step=5),
        epochs=25,
        steps_per_epoch=2_000,
        callbacks=[collect, keras_dqn.SoftTargetUpdate(tau=0.005), evaluate, *callbacks],
        verbose=0,
    )
    return agent.get_state(), replay.get_state(), history.history


@pytest.mark.hard
@pytest.mark.parametrize("seed", range(10))
def test_checkpoints_do_not_change_what_is_learned(seed, tmp_path):
    without = quick_start(seed)
    checkpoint = keras_dqn.TrainingCheckpoint(tmp_path, save_freq=1_000)
    np.testing.assert_equal(quick_start(seed, [checkpoint]), without)
    print(f"\nseed {seed}: both end at a greedy return of {without[2]['val_return'][-1]:g}")
