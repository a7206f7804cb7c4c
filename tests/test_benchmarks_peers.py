"""What measures other libraries in the learning curves, against a slow reference."""

import importlib.util
import pathlib

import gymnasium as gym
import numpy as np
import pytest

PATH = pathlib.Path(__file__).parents[1] / "benchmarks" / "learning_peers.py"
SPEC = importlib.util.spec_from_file_location("learning_peers", PATH)
learning_peers = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(learning_peers)


def lean(observation):
    """Pushes against the pole's speed: episodes of different lengths, none of them long."""
    return (observation[..., 3] > 0.2).astype(np.int64)


def test_the_mean_is_that_of_one_environment_after_the_other():
    returns = []
    for i in range(10):
        env = gym.make("CartPole-v1", max_episode_steps=120)
        observation, _ = env.reset(seed=7 + i)
        for _ in range(3):
            returns.append(0.0)
            ended = False
            while not ended:
                observation, reward, terminated, truncated, _ = env.step(int(lean(observation)))
                returns[-1] += reward
                ended = terminated or truncated
            observation, _ = env.reset()
    assert len(set(returns)) > 5
    mean = learning_peers.mean_return("CartPole-v1", lean, 30, seed=7, max_episode_steps=120)
    assert mean == np.mean(returns)


def test_each_zoo_setting_is_for_an_environment_of_the_presets():
    assert learning_peers.ZOO.keys() == learning_peers.ZOO_QRDQN.keys()
    assert learning_peers.ZOO.keys() == learning_peers.NUM_QUANTILES.keys()


def test_a_mean_of_unequal_shares_is_refused():
    with pytest.raises(ValueError, match=r"must be a multiple of 10\. Received: episodes=15"):
        learning_peers.mean_return("CartPole-v1", lean, 15, seed=7)
