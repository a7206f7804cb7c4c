import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn.layers import box_rescaling


def network(space, **kwargs):
    return keras.Sequential([keras.Input(space.shape, **kwargs), box_rescaling(space)])


def test_bounds_become_minus_one_and_one():
    space = gym.make("MountainCar-v0").observation_space  # [-1.2, 0.6], [-0.07, 0.07]
    observations = np.array([space.low, space.high, [-0.3, 0.035]])
    np.testing.assert_allclose(
        network(space)(observations), [[-1, -1], [1, 1], [0, 0.5]], rtol=0, atol=1e-6
    )


def test_entries_without_two_bounds_stay_as_they_are():
    inf, largest = np.inf, np.finfo(np.float32).max
    space = gym.spaces.Box(
        np.array([-2, -inf, 0, -largest, 5], np.float32),
        np.array([2, inf, inf, largest, 5], np.float32),
    )
    observations = np.array([[1, 7, 8, 9, 5]], np.float32)
    np.testing.assert_allclose(network(space)(observations), [[0.5, 7, 8, 9, 5]], rtol=1e-6)


def test_pictures():
    space = gym.spaces.Box(0, 255, (4, 4, 1), np.uint8)
    output = network(space, dtype="uint8")(space.high[None])
    np.testing.assert_allclose(output, np.ones((1, 4, 4, 1)), rtol=0, atol=1e-6)


def test_an_agent_with_it_acts_trains_saves_and_loads(tmp_path):
    env = gym.make("MountainCar-v0", max_episode_steps=20)
    space = env.observation_space
    agent = keras_dqn.DQN(
        keras.Sequential([keras.Input(space.shape), box_rescaling(space), keras.layers.Dense(3)])
    )
    agent.compile("adam")
    replay = keras_dqn.ReplayBuffer.from_env(env, 100, seed=0)
    agent.fit(
        replay.dataset(4),
        steps_per_epoch=4,
        verbose=0,
        callbacks=[
            keras_dqn.CollectTransitions(
                env, replay, exploration=keras_dqn.EpsilonGreedy(0.5), warmup_steps=30, seed=0
            ),
            keras_dqn.SoftTargetUpdate(),
        ],
    )
    x = np.stack([space.sample() for _ in range(5)])
    np.testing.assert_allclose(agent.policy().action_values(x), agent.network(x), atol=1e-5)
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    np.testing.assert_array_equal(loaded.network(x), agent.network(x))
    np.testing.assert_allclose(agent.target_network.layers[0](x), agent.network.layers[0](x))


def test_another_space_is_refused():
    with pytest.raises(TypeError, match="`space` must be a gymnasium"):
        box_rescaling(gym.spaces.Discrete(3))
