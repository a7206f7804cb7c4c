"""Munchausen's and CQL's terms, by hand and against a slow reference."""

import numpy as np

from keras_dqn import ops

# softmax(Q / 0.5) of (0, 0.5 * log 3) is (1/4, 3/4).
Q_VALUES = np.array([[0.0, 0.5 * np.log(3.0)], [0.5 * np.log(3.0), 0.0]], np.float32)


def test_the_soft_policy_by_hand():
    policy = ops.soft_policy(Q_VALUES, 0.5)
    np.testing.assert_allclose(policy, [[0.25, 0.75], [0.75, 0.25]], rtol=1e-5)


def test_the_scaled_entropy_by_hand():
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(ops.scaled_entropy(Q_VALUES, 0.5), 2 * [0.5 * entropy], rtol=1e-5)


def test_the_munchausen_bonus_by_hand():
    # 0.5 * log(1/4) = -0.693 and 0.5 * log(3/4) = -0.144; the clip at -0.5 cuts the first.
    bonus = ops.munchausen_bonus(Q_VALUES, np.array([0, 0]), 0.9, 0.5, -0.5)
    np.testing.assert_allclose(bonus, [0.9 * -0.5, 0.9 * 0.5 * np.log(0.75)], rtol=1e-5)
    bonus = ops.munchausen_bonus(Q_VALUES, np.array([0, 0]), 0.9, 0.5, -1.0)
    np.testing.assert_allclose(bonus[0], 0.9 * 0.5 * np.log(0.25), rtol=1e-5)


def test_large_values_at_a_low_temperature_stay_finite():
    q_values = np.array([[1e4, -1e4, 3.0]], np.float32)
    assert np.isfinite(ops.scaled_log_policy(q_values, 0.03)).all()
    np.testing.assert_allclose(ops.scaled_entropy(q_values, 0.03), [0.0], atol=1e-6)
    bonus = ops.munchausen_bonus(q_values, np.array([1]), 1.0, 0.03, -1.0)
    np.testing.assert_allclose(bonus, [-1.0])


def test_the_conservative_penalty_by_hand():
    # log(exp(0) + exp(log 3)) = log 4, minus the value of the action.
    q_values = np.array([[0.0, np.log(3.0)], [np.log(3.0), 0.0]], np.float32)
    penalty = ops.conservative_penalty(q_values, np.array([0, 0]))
    np.testing.assert_allclose(penalty, [np.log(4.0), np.log(4.0) - np.log(3.0)], rtol=1e-5)
