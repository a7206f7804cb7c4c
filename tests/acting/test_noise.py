"""Noise of `NoisyDense` layers as an input of a policy's program."""

import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn.acting import litert_program
from keras_dqn.acting.exploration import draw_noise
from keras_dqn.acting.noise import noisy_layers
from keras_dqn.layers import DuelingHead, NoisyDense
from keras_dqn.layers.noise import noise_given

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def torso():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu")])


def dense():
    layers = [torso(), NoisyDense(5, activation="relu", sigma0=2.0), NoisyDense(2, sigma0=2.0)]
    return keras_dqn.DQN(keras.Sequential(layers))


def quantiles():
    head = DuelingHead(2, 7, hidden_units=5, noisy=True)
    return keras_dqn.QuantileDQN(keras.Sequential([torso(), head]), num_quantiles=7)


def implicit():
    return keras_dqn.ImplicitQuantileDQN(torso(), DuelingHead(2, noisy=True), num_cosines=4)


BY_AGENT = pytest.mark.parametrize("make", [dense, quantiles, implicit])


def reference(agent, noise):
    """The values for each environment, computed alone and eagerly with its noise."""
    rows = []
    for x, numbers in zip(X, noise, strict=True):
        with noise_given(noisy_layers(agent.network), numbers[None]):
            rows.append(agent.q_values(agent.outputs_of(agent.network, x[None]))[0])
    return np.array(rows)


@BY_AGENT
@pytest.mark.parametrize("fast", [True, False], ids=["litert", "compiled"])
def test_noisy_values_equal_those_of_the_network_with_this_noise(make, fast, monkeypatch):
    if fast:
        pytest.importorskip("ai_edge_litert")
    else:
        monkeypatch.setattr(litert_program, "Interpreter", None)
    agent = make()
    policy = agent.policy()
    size = sum(layer.noise_size for layer in noisy_layers(agent.network))
    for _ in range(2):
        rng, same = np.random.default_rng(7), np.random.default_rng(7)
        values = policy.noisy_action_values(X, rng)
        expected = reference(agent, draw_noise(len(X), size, same))
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
        assert np.abs(values - policy.action_values(X)).max() > 0.01
        for weight in agent.network.weights:
            weight.assign(weight * 1.1)
        policy.refresh()
    assert (policy.backend == "litert") is fast


def test_each_step_and_each_environment_has_a_draw_of_its_own():
    policy, rng = dense().policy(), np.random.default_rng(0)
    same = np.repeat(X[:1], 6, axis=0)
    first, second = policy.noisy_action_values(same, rng), policy.noisy_action_values(same, rng)
    assert len(np.unique(first[:, 0])) == 6
    assert (first != second).all()
    assert len(np.unique(policy.action_values(same)[:, 0])) == 1


def test_the_distribution_of_the_noise():
    """f(e) = sign(e) sqrt(|e|): the mean is 0, and the mean square is E|e| = sqrt(2 / pi)."""
    noise = draw_noise(400, 100, np.random.default_rng(0))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 5 * 0.9 / 200
    assert abs((noise**2).mean() - np.sqrt(2 / np.pi)) < 5 * 0.61 / 200


def test_a_network_without_noise_is_refused_before_the_warm_up():
    env = gym.make("CartPole-v1")
    agent = keras_dqn.DQN(keras.Sequential([torso(), keras.layers.Dense(2)]))
    agent.compile("adam", jit_compile=False)
    replay = keras_dqn.ReplayBuffer.from_env(env, 2_000)
    collect = keras_dqn.CollectTransitions(env, replay, exploration=keras_dqn.NoisyGreedy())
    with pytest.raises(ValueError, match="`exploration` NoisyGreedy needs a network with"):
        agent.fit(replay.dataset(8), steps_per_epoch=4, callbacks=[collect], verbose=0)
    assert collect.env_steps == 0
    with pytest.raises(ValueError, match="`exploration` NoisyGreedy needs a network with"):
        agent.policy().noisy_action_values(X, np.random.default_rng(0))


def test_an_evaluation_may_explore_by_noise():
    keras.utils.set_random_seed(0)
    agent = dense()
    greedy = keras_dqn.EvaluatePolicy(gym.make("CartPole-v1"), episodes=5, seed=0)
    noisy = keras_dqn.EvaluatePolicy(
        gym.make("CartPole-v1"), episodes=5, exploration=keras_dqn.NoisyGreedy(), seed=0
    )
    returns = {evaluation.evaluate(agent) for evaluation in (greedy, greedy, noisy)}
    assert len(returns) == 2
