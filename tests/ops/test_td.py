import numpy as np

from keras_dqn import ops


def test_td_target_by_hand():
    # 1 + 0.5 * 10 and 2 + 0 * 99: a terminated step must not look at what comes after.
    target = ops.td_target(np.array([1.0, 2.0]), np.array([0.5, 0.0]), np.array([10.0, 99.0]))
    np.testing.assert_array_equal(target, [6.0, 2.0])


def test_take_action_and_greedy_action():
    q_values = np.array([[1.0, 5.0, 3.0], [7.0, 2.0, 7.0]], np.float32)
    np.testing.assert_array_equal(ops.greedy_action(q_values), [1, 0])
    np.testing.assert_array_equal(ops.take_action(q_values, np.array([2, 1], np.int32)), [3.0, 2.0])
