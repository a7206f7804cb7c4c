import keras
import numpy as np
import pytest

from keras_dqn import (
    Boltzmann,
    EpsilonGreedy,
    EpsilonZGreedy,
    ExponentialSchedule,
    Greedy,
    LinearSchedule,
    NoisyGreedy,
)

Q = np.array([[0.0, 1.0, 3.0, 2.0]], np.float32)
DRAWS = 40_000


def frequencies(explore, q_values=Q, draws=DRAWS, seed=0):
    actions = explore(np.repeat(q_values, draws, axis=0), np.random.default_rng(seed))
    return np.bincount(actions, minlength=q_values.shape[1]) / draws


def assert_drawn_from(observed, expected, draws=DRAWS):
    # Five standard deviations of a binomial share.
    expected = np.asarray(expected)
    assert (np.abs(observed - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_greedy_takes_the_best_and_the_first_of_equals():
    actions = Greedy()(np.array([[1.0, 2.0], [3.0, 0.0], [5.0, 5.0]]), np.random.default_rng(0))
    np.testing.assert_array_equal(actions, [1, 0, 0])
    assert Greedy().logs == {}


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 1.0])
def test_epsilon_greedy_frequencies(epsilon):
    # Each action gets epsilon / A, the greedy one 1 - epsilon more.
    expected = np.full(4, epsilon / 4)
    expected[2] += 1 - epsilon
    assert_drawn_from(frequencies(EpsilonGreedy(epsilon)), expected)


def test_each_environment_tosses_its_own_coin():
    explore, rng = EpsilonGreedy(0.5), np.random.default_rng(0)
    q_values = np.tile([[0.0, 0.0, 0.0, 1.0]], (8, 1))
    explored = np.array([explore(q_values, rng) != 3 for _ in range(2_000)])
    # An exploring environment leaves the greedy action three times in four: p = 0.5 * 0.75. The
    # sum of eight independent coins has variance 8 p (1 - p) = 1.875; of one coin, 64 p (1 - p).
    assert explored.mean() == pytest.approx(0.375, abs=0.02)
    assert explored.sum(axis=1).var() == pytest.approx(1.875, rel=0.15)


def test_explored_actions_of_two_environments_are_independent():
    explore, rng = EpsilonGreedy(1.0), np.random.default_rng(0)
    pairs = np.array([explore(np.zeros((2, 3)), rng) for _ in range(9_000)])
    joint = np.bincount(pairs[:, 0] * 3 + pairs[:, 1], minlength=9) / 9_000
    assert_drawn_from(joint, np.full(9, 1 / 9), draws=9_000)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_boltzmann_frequencies(temperature):
    weights = np.exp(Q[0].astype(float) / temperature)
    assert_drawn_from(frequencies(Boltzmann(temperature)), weights / weights.sum())


def test_boltzmann_survives_huge_values():
    with np.errstate(all="raise"):
        assert frequencies(Boltzmann(0.01), Q * 1e6, draws=100)[2] == 1.0


@pytest.mark.parametrize("explore", [Greedy(), EpsilonGreedy(0.5), Boltzmann(1.0)])
def test_actions_are_int64_one_an_environment_and_follow_the_seed(explore):
    q_values = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)
    first, again = (explore(q_values, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == (64,)
    assert first.dtype == np.int64
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("explore", [EpsilonGreedy(0.5), Boltzmann(1.0)])
def test_another_seed_gives_other_actions(explore):
    q_values = np.zeros((64, 4))
    first, other = (explore(q_values, np.random.default_rng(seed)) for seed in (1, 2))
    assert (first != other).any()


def test_the_global_generator_is_left_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    frequencies(EpsilonGreedy(0.5))
    frequencies(Boltzmann(1.0))
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize(
    ("schedule", "value"),
    [
        (LinearSchedule(1.0, 0.0, 100), 0.75),
        (ExponentialSchedule(1.0, 0.5), 0.5**25),
        (ExponentialSchedule(1.0, 0.5, unit="episodes"), 0.125),
        (lambda step: 1 / step if step else 1.0, 0.04),
        (keras.optimizers.schedules.PolynomialDecay(1.0, 100, 0.0), 0.75),
        (0.3, 0.3),
        (1, 1.0),
    ],
    ids=["linear", "exponential", "episodes", "lambda", "keras", "float", "int"],
)
def test_schedules_are_read_at_their_count(schedule, value):
    explore = EpsilonGreedy(schedule)
    explore.update(env_steps=25, episodes=3)
    assert explore.logs == {"epsilon": pytest.approx(value)}
    assert type(explore.logs["epsilon"]) is float


def test_temperature_is_scheduled_and_logged():
    explore = Boltzmann(LinearSchedule(3.0, 1.0, 100))
    assert explore.logs == {"temperature": 3.0}
    explore.update(50, 0)
    assert explore.logs == {"temperature": 2.0}


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, float("nan"), lambda step: 2.0])
def test_epsilon_outside_its_range_is_refused(epsilon):
    with pytest.raises(ValueError, match=r"`epsilon` must be in \[0, 1\]. Received: epsilon="):
        EpsilonGreedy(epsilon)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_outside_its_range_is_refused(temperature):
    with pytest.raises(ValueError, match=r"`temperature` must be.*Received: temperature="):
        Boltzmann(temperature)


def test_schedule_that_leaves_the_range_is_refused_when_it_is_read():
    explore = EpsilonGreedy(lambda step: 1.0 + step)
    with pytest.raises(ValueError, match=r"`epsilon` must be in \[0, 1\]. Received: epsilon=6.0"):
        explore.update(5, 0)


def test_noisy_greedy_takes_the_best_of_the_values_it_gets():
    explore = NoisyGreedy()
    assert explore.noisy
    assert not Greedy().noisy
    np.testing.assert_array_equal(explore(Q, np.random.default_rng(0)), [2])
    assert explore.logs == {}


def zeta_mean(mu, longest):
    """The mean duration: a zeta distribution whose tail is cut at the longest."""
    n = np.arange(1, 2_000_000, dtype=float)
    p = n**-mu / (n**-mu).sum()
    return (np.minimum(n, longest) * p).sum()


def test_epsilon_z_greedy_repeats_random_actions():
    explore, rng = EpsilonZGreedy(0.1, mu=2.5, max_duration=50), np.random.default_rng(0)
    q_values = np.tile(
        [[0.0] * 99 + [1.0]], (4, 1)
    )  # a random action is nearly never the greedy one
    actions = np.array([explore(q_values, rng) for _ in range(40_000)])
    random = actions != 99
    # Of steps that may begin one, a tenth do, and each takes its duration.
    length = zeta_mean(2.5, 50)
    assert random.mean() == pytest.approx(0.1 * length / (0.1 * length + 0.9), rel=0.05)
    # Consecutive random steps mostly repeat their action; single coins would in one of 99.
    both = random[1:] & random[:-1]
    assert (actions[1:] == actions[:-1])[both].mean() > 0.4
    assert explore.logs == {"epsilon": 0.1}


def test_epsilon_z_greedy_by_hand():
    class Draws:
        """A generator whose draws are given."""

        def __init__(self, coins, actions, durations):
            self.coins, self.actions, self.durations = iter(coins), iter(actions), iter(durations)

        def random(self, size):
            return np.array([next(self.coins) for _ in range(size)])

        def integers(self, low, high=None, size=None, **kwargs):
            return np.array([next(self.actions) for _ in range(*size)])

        def zipf(self, mu, size):
            return np.array([next(self.durations) for _ in range(size)])

    # Environment 0 begins action 1 for 3 steps, at step 1; environment 1 action 3 for 1, at step 2.
    coins = [0.0, 0.9, 0.0, 0.0, 0.0, 0.9, 0.9, 0.9]
    explore, rng = EpsilonZGreedy(0.5, max_duration=3), Draws(coins, [1, 3], [70, 1])
    q_values = np.tile(Q, (2, 1))
    actions = [explore(q_values, rng).tolist() for _ in range(4)]
    assert actions == [[1, 2], [1, 3], [1, 2], [2, 2]]


def test_epsilon_z_greedy_goes_on_from_its_state():
    q_values = np.tile(Q, (3, 1))
    one, other = EpsilonZGreedy(0.3), EpsilonZGreedy(0.3)
    rng = np.random.default_rng(0)
    for _ in range(20):
        one(q_values, rng)
    other.set_state(one.get_state())
    again = np.random.default_rng(0)
    again.bit_generator.state = rng.bit_generator.state
    for _ in range(50):
        np.testing.assert_array_equal(one(q_values, rng), other(q_values, again))


def test_epsilon_z_greedy_refuses_bad_arguments():
    with pytest.raises(ValueError, match=r"`epsilon` must be in \[0, 1\]"):
        EpsilonZGreedy(1.5)
    with pytest.raises(ValueError, match="`mu` must be above 1"):
        EpsilonZGreedy(0.1, mu=1.0)
    with pytest.raises(ValueError, match="`max_duration` must be at least 1"):
        EpsilonZGreedy(0.1, max_duration=0)
