"""C51, QR-DQN and IQN recover distributions of returns that are known in closed form.

All updates use one batch with each outcome in its exact proportion, so no sampling error is left.
The distance is Wasserstein-1. Its bound is the resolution of a representation, times what happens
to it in the Bellman equation, plus a learning error.

The loss of quantiles is that of quantile regression, `QuantileHuber(kappa=0)`: the returns differ
by less than the default kappa of 1, and within kappa the loss learns expectiles, not quantiles.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dqn

LEARNING_ERROR = 0.03  # in units of return; the rewards are at most 1
ATOMS, QUANTILES, COSINES, MIDPOINTS = 31, 25, 32, 32
UPDATES = 1_000
V_MIN, V_MAX = -2.0, 2.1  # no reward lies on an atom
WIDTH, WIDTH_OF_BIN = (V_MAX - V_MIN) / (ATOMS - 1), (V_MAX - V_MIN) / ATOMS


# Distributions: values and their probabilities


def wasserstein(values, probabilities, other_values, other_probabilities):
    """Returns the area between two distribution functions."""
    points = np.sort(np.concatenate([values, other_values]))
    below, other_below = (
        (v[None] <= points[:, None]) @ p
        for v, p in ((values, probabilities), (other_values, other_probabilities))
    )
    return float(np.sum(np.abs(below - other_below)[:-1] * np.diff(points)))


def test_the_distance_by_hand():
    one = np.array([0.0, 1.0]), np.array([0.7, 0.3])
    assert wasserstein(*one, *one) == 0.0
    # 0.1 of the probability moves by 1; all of it moves by 2; 0.7 by 0.3 and 0.3 by 0.7.
    np.testing.assert_allclose(wasserstein(*one, one[0], np.array([0.6, 0.4])), 0.1)
    np.testing.assert_allclose(wasserstein(*one, one[0] + 2, one[1]), 2.0)
    np.testing.assert_allclose(wasserstein(*one, np.array([0.3]), np.ones(1)), 0.42)


# The two problems: a batch with each outcome in its proportion, and the true distributions


def bandit():
    """Action 0 pays 0.5; action 1 pays 1 with probability 0.3, else 0. Each episode is one step."""
    rows = [(0, 0, 0.5, 0.0, 0)] * 10
    rows += [(0, 1, float(i < 3), 0.0, 0) for i in range(10)]
    truth = {
        (0, 0): (np.array([0.5]), np.ones(1)),
        (0, 1): (np.array([0.0, 1.0]), np.array([0.7, 0.3])),
    }
    return rows, truth


GAMMA = 0.5


def chain():
    """Two cells, two steps. Action 1 pays 1 with probability 0.7, else -1; action 0 pays 0.2.

    Both lead from cell 0 to cell 1, and there the episode ends. The mean of action 1 is 0.4, so it
    is the next action. The return of action 1 in cell 0 has 4 values: each of two rewards, plus
    half of the second one.
    """
    pays = {0: [0.2] * 10, 1: [1.0] * 7 + [-1.0] * 3}
    rows = [
        (cell, action, reward, GAMMA * (cell == 0), 1)
        for cell, action in itertools.product(range(2), range(2))
        for reward in pays[action]
    ]
    coin = np.array([-1.0, 1.0]), np.array([0.3, 0.7])
    later = GAMMA * coin[0]
    truth = {
        (1, 0): (np.array([0.2]), np.ones(1)),
        (1, 1): coin,
        (0, 0): (0.2 + later, coin[1]),
        (0, 1): (np.add.outer(coin[0], later).ravel(), np.outer(coin[1], coin[1]).ravel()),
    }
    return rows, truth


PROBLEMS = {"bandit": bandit, "chain": chain}


def test_the_return_of_the_chain_by_hand():
    values, probabilities = chain()[1][0, 1]
    np.testing.assert_allclose(values, [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_allclose(probabilities, [0.09, 0.21, 0.21, 0.49])


# Agents, and the distributions that they learned


def make_agent(name):
    features = [keras.Input((), dtype="int32"), keras.layers.CategoryEncoding(2, "one_hot")]
    if name == "iqn":
        torso = keras.Sequential([*features, keras.layers.Dense(32, "tanh")])
        return keras_dqn.ImplicitQuantileDQN(
            torso,
            keras.Sequential([keras.layers.Dense(64, "relu"), keras.layers.Dense(2)]),
            num_cosines=COSINES,
            num_quantiles=16,
            num_target_quantiles=16,
            seed=0,
        )
    size = {"c51": ATOMS, "hl_gauss": ATOMS, "qr": QUANTILES}[name]
    network = keras.Sequential(
        [*features, keras.layers.Dense(2 * size), keras.layers.Reshape((2, size))]
    )
    if name == "c51":
        return keras_dqn.CategoricalDQN(network, num_atoms=ATOMS, v_min=V_MIN, v_max=V_MAX)
    if name == "hl_gauss":
        return keras_dqn.HLGaussDQN(network, num_bins=ATOMS, v_min=V_MIN, v_max=V_MAX)
    return keras_dqn.QuantileDQN(network, num_quantiles=QUANTILES)


def trained(name, rows, kappa=0.0):
    loss = keras_dqn.losses.QuantileHuber(kappa) if name in ("qr", "iqn") else "auto"
    cell, action, reward, discount, following = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    transition = {
        "action": action.astype(np.int32),
        "reward": reward.astype(np.float32),
        "discount": discount.astype(np.float32),
        "next_observation": following.astype(np.int32),
    }
    batch = (cell.astype(np.int32), transition, np.ones(len(rows), np.float32))
    agent = make_agent(name)
    rate = keras.optimizers.schedules.PolynomialDecay(0.02, UPDATES, 0.0002)
    agent.compile(keras.optimizers.Adam(rate), loss=loss, steps_per_execution=50, jit_compile=False)
    agent.fit(
        tf.data.Dataset.from_tensors(batch).repeat(UPDATES),
        verbose=0,
        callbacks=[keras_dqn.SoftTargetUpdate(0.05)],
    )
    return agent


def learned(agent, cell, action):
    """Returns the values and probabilities that an agent gives to an observation and an action."""
    outputs = agent(np.array([cell], np.int32))
    values = np.asarray(agent.next_values(outputs))[0, action]
    if isinstance(agent, keras_dqn.CategoricalDQN):
        return agent.support, values
    return values, np.full(len(values), 1 / len(values))


def resolution(name, spread):
    """Returns how far the best distribution of a representation may be from the truth.

    - C51: the projection of a value at x widths from the atom below moves 1 - x of its probability
      by x widths and x of it by 1 - x widths: 2 x (1 - x) widths, at most width / 2.
    - QR-DQN: each of N equal parts of the probability is at one value, which may be wrong for half
      of the part: at most (largest - smallest value) / (2 N).
    - IQN: the same for the midpoints; and its quantile function is smooth. A jump takes about half
      a period of the fastest cosine, 1 / cosines, and is wrong for half of it.
    """
    if name == "c51":
        return WIDTH / 2
    if name == "qr":
        return spread / (2 * QUANTILES)
    return spread / (2 * MIDPOINTS) + spread / (2 * COSINES)


def bound_of(name, truth, cell, action):
    """The error of the next distribution comes back times gamma."""
    values, _ = truth[cell, action]
    bound = LEARNING_ERROR + resolution(name, np.ptp(values))
    if (1, 1) in truth and cell == 0:
        bound += GAMMA * bound_of(name, truth, 1, 1)
    return bound


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ["c51", "qr", "iqn"])
def test_it_recovers_the_distribution_of_returns(name, problem):
    rows, truth = PROBLEMS[problem]()
    agent = trained(name, rows)
    for (cell, action), distribution in truth.items():
        values, probabilities = learned(agent, cell, action)
        distance = wasserstein(values, probabilities, *distribution)
        assert distance < bound_of(name, truth, cell, action), (cell, action)
        if name == "c51":  # a projection keeps the mean, so no resolution limits it
            expected = np.dot(*distribution)
            np.testing.assert_allclose(values @ probabilities, expected, atol=LEARNING_ERROR)
        else:  # the values belong to growing fractions
            assert (np.diff(values) > -LEARNING_ERROR).all()


@pytest.mark.parametrize("name", ["c51", "qr", "iqn"])
def test_wrong_distributions_are_outside_the_bounds(name):
    _, truth = bandit()
    bound, (values, probabilities) = bound_of(name, truth, 0, 1), truth[0, 1]
    one = np.ones(1)
    assert wasserstein(np.array([0.3]), one, values, probabilities) > bound  # the mean
    assert wasserstein(values, np.array([0.5, 0.5]), values, probabilities) > bound

    _, truth = chain()
    bound, (values, probabilities) = bound_of(name, truth, 0, 1), truth[0, 1]
    coin, chances = truth[1, 1]
    assert wasserstein(np.array([0.6]), one, values, probabilities) > bound  # the mean
    # The mean of the next returns instead of their distribution; action 0 next; no discount.
    assert wasserstein(coin + GAMMA * 0.4, chances, values, probabilities) > bound
    assert wasserstein(coin + GAMMA * 0.2, chances, values, probabilities) > bound
    undiscounted = np.add.outer(coin, coin).ravel()
    assert wasserstein(undiscounted, probabilities, values, probabilities) > bound


@pytest.mark.parametrize("problem", PROBLEMS)
def test_hl_gauss_learns_expected_returns_only(problem):
    """Its target is a scalar, the mean of the next returns, which a histogram does not move."""
    rows, truth = PROBLEMS[problem]()
    agent = trained("hl_gauss", rows)
    values = agent.policy().action_values(np.arange(2))
    for (cell, action), (returns, probabilities) in truth.items():
        expected = returns @ probabilities
        np.testing.assert_allclose(values[cell, action], expected, rtol=0, atol=LEARNING_ERROR)
    if problem == "chain":
        histogram = np.asarray(agent.probabilities(agent(np.array([0], np.int32))))[0, 1]
        coin, chances = truth[1, 1]
        without_next = coin + GAMMA * 0.4, chances
        assert wasserstein(agent.support, histogram, *truth[0, 1]) > 0.2
        # The mean distance of a normal from its mean, and half a bin.
        spread = 0.75 * WIDTH_OF_BIN * np.sqrt(2 / np.pi) + WIDTH_OF_BIN / 2
        distance = wasserstein(agent.support, histogram, *without_next)
        assert distance < spread + LEARNING_ERROR


def test_the_default_kappa_learns_expectiles_of_small_returns():
    """For fraction f and probability p of a 1: f * p * (1 - e) = (1 - f) * (1 - p) * e.

    Their mean is not 0.3: with returns that differ by less than kappa, QR-DQN has a bias.
    """
    rows, _ = bandit()
    values, _ = learned(trained("qr", rows, kappa=1.0), 0, 1)
    fractions = (np.arange(QUANTILES) + 0.5) / QUANTILES
    expectiles = 0.3 * fractions / (0.3 * fractions + 0.7 * (1 - fractions))
    np.testing.assert_allclose(values, expectiles, rtol=0, atol=LEARNING_ERROR)
    assert values.mean() > 0.3 + LEARNING_ERROR
