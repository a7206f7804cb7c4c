import gymnasium as gym
import numpy as np
import pytest

from keras_dqn.spaces.action_mask import forbid
from keras_dqn.spaces.action_spec import ActionSpec, greedy_actions, random_actions


def test_the_two_numberings():
    spec = ActionSpec(gym.spaces.Discrete(3, start=5))
    assert (spec.num_actions, spec.start, spec.shape) == (3, 5, ())
    np.testing.assert_array_equal(spec.to_env(np.array([0, 2])), [5, 7])
    assert spec.from_env([5, 7]) == [0, 2]
    for action in (4, 8):
        with pytest.raises(ValueError, match=r"`action` must be in Discrete\(3, start=5\)"):
            spec.from_env([5, action])


def test_values_must_be_one_for_each_action():
    spec = ActionSpec(gym.spaces.Discrete(3))
    spec.check_values(np.zeros((2, 3)), 2)
    for shape in ((2, 4), (1, 3), (2,), (2, 3, 1)):
        with pytest.raises(ValueError, match="one value for each of the 3 actions"):
            spec.check_values(np.zeros(shape), 2)


@pytest.mark.parametrize(
    "space", [gym.spaces.Box(0.0, 1.0), gym.spaces.MultiDiscrete([[2, 2]]), None], ids=str
)
def test_another_space_is_refused(space):
    with pytest.raises(ValueError, match="`action_space` must be gymnasium"):
        ActionSpec(space)


SPEC = ActionSpec(gym.spaces.Discrete(4, start=9))


def test_samples_are_uniform():
    counts = np.bincount(SPEC.sample(np.random.default_rng(0), 40_000), minlength=4)
    # Each count is binomial: standard deviation sqrt(40,000 * 0.25 * 0.75) = 87.
    assert np.abs(counts - 10_000).max() < 5 * 87


def test_greedy_choice_passes_forbidden_actions_over():
    values = np.array([[1.0, 3.0, 3.0], [5.0, 4.0, -1.0], [7.0, 8.0, 9.0]])
    np.testing.assert_array_equal(greedy_actions(values), [1, 0, 2])
    mask = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1]], np.int8)
    np.testing.assert_array_equal(greedy_actions(forbid(values, mask)), [2, 2, 2])
    # What is masked may be NaN, and what is allowed may be lower than all that is not.
    hidden = forbid(np.array([[np.nan, -1e30, -5.0]]), [[0, 1, 0]])
    np.testing.assert_array_equal(greedy_actions(hidden), [1])


def test_greedy_choice_in_several_branches():
    values = np.array([[[1.0, 2.0], [4.0, 3.0]]])  # [E, D, A]
    np.testing.assert_array_equal(greedy_actions(values), [[1, 0]])


def test_random_choice_is_uniform_over_what_is_allowed():
    rng = np.random.default_rng(0)
    values = np.zeros((30_000, 4))
    counts = np.bincount(random_actions(values, rng), minlength=4)
    assert np.abs(counts - 7_500).max() < 5 * 75  # sqrt(30,000 * 0.25 * 0.75) = 75
    allowed = forbid(values, np.tile([1, 0, 1, 1], (30_000, 1)))
    mask = np.tile(np.array([1, 0, 1, 1], np.int8), (30_000, 1))
    for actions in (random_actions(allowed, rng), SPEC.sample(rng, 30_000, mask)):
        counts = np.bincount(actions, minlength=4)
        assert counts[1] == 0
        assert np.abs(counts[[0, 2, 3]] - 10_000).max() < 5 * 82  # sqrt(30,000 / 3 * 2 / 3) = 82


def test_a_row_without_an_allowed_action_gives_the_first():
    """Its environment is about to reset itself, so the action does not count."""
    rng, none = np.random.default_rng(0), np.zeros((3, 4), np.int8)
    for actions in (random_actions(forbid(np.ones((3, 4)), none), rng), SPEC.sample(rng, 3, none)):
        np.testing.assert_array_equal(actions, [0, 0, 0])


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the shape of the action values, \(2, 3\)"):
        forbid(np.zeros((2, 3)), np.ones(3, np.int8))
