"""Q-learning through `fit` reaches what can be computed in closed form."""

import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn

GAMMA = 0.9
LENGTH = 5


class Chain(gym.Env):
    """States 0..4; action 0 stays and pays 0.1; action 1 goes right, leaving state 4 pays 2.

    Staying for ever is worth 0.1 / (1 - gamma) = 1, going right 2 * gamma^(4 - state) > 1.3, so
    with V(s) = 2 * gamma^(4 - s) the optimum is Q(s, 1) = V(s) and Q(s, 0) = 0.1 + gamma * V(s).
    An episode is cut after 20 steps, which must not change the values.
    """

    observation_space = gym.spaces.Discrete(LENGTH)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(LENGTH))
        self.steps = 0
        return self.state, {}

    def step(self, action):
        self.steps += 1
        terminated = bool(action == 1 and self.state == LENGTH - 1)
        reward = 0.1 if action == 0 else 2.0 * terminated
        self.state = min(self.state + int(action), LENGTH - 1)
        return self.state, reward, terminated, self.steps == 20, {}


def optimal_q():
    value = 2 * GAMMA ** np.arange(LENGTH)[::-1]
    return np.stack([0.1 + GAMMA * value, value], axis=1)


class RandomThenGreedy(keras_dqn.EpsilonGreedy):
    """Exploring starts: the first action of each episode is random, the others are optimal.

    Then the rewards that follow a start are those of the greedy policy, and targets of n steps
    have the same fixed point as those of one.
    """

    def __init__(self, env):
        super().__init__(0.0)
        self.env = env

    def __call__(self, q_values, rng):
        return rng.integers(2, size=1) if self.env.steps == 0 else np.array([1])


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("double", [False, True], ids=["dqn", "double"])
def test_chain_reaches_the_closed_form(n_step, double):
    env = Chain()
    table = keras.Sequential([keras.Input((), dtype="int32"), keras.layers.Embedding(LENGTH, 2)])
    agent = keras_dqn.DQN(table, double=double)
    schedule = keras.optimizers.schedules.PolynomialDecay(0.05, 4_000, 0.0005)
    agent.compile(keras.optimizers.Adam(schedule), loss="mse", steps_per_execution=100)
    replay = keras_dqn.ReplayBuffer.from_env(env, 20_000, seed=0)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(1.0) if n_step == 1 else RandomThenGreedy(env),
        warmup_steps=1_000 if n_step == 1 else 0,
        seed=0,
    )
    agent.fit(
        replay.dataset(256, gamma=GAMMA, n_step=n_step),
        steps_per_epoch=4_000,
        verbose=0,
        callbacks=[collect, keras_dqn.SoftTargetUpdate(0.05)],
    )
    np.testing.assert_allclose(
        agent.predict(np.arange(LENGTH), verbose=0), optimal_q(), rtol=0, atol=1e-2
    )
