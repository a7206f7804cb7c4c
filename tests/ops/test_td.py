import numpy as np
import pytest
import tensorflow as tf

from keras_dqn import ops

NAN = np.float32(np.nan)


def test_td_target_by_hand():
    # 1 + 0.5 * 10 and 2 + 0 * 99: a terminated step must not look at what comes after.
    reward, discount = np.array([1.0, 2.0]), np.array([0.5, 0.0])
    target = ops.td_target(reward, discount, np.array([10.0, 99.0]))
    np.testing.assert_array_equal(target, [6.0, 2.0])
    target = ops.td_target(reward, discount, np.array([[10.0, 20.0, 30.0], [99.0, 98.0, 97.0]]))
    np.testing.assert_array_equal(target, [[6.0, 11.0, 16.0], [2.0, 2.0, 2.0]])


def test_nothing_differentiates_through_a_target():
    value = tf.Variable([3.0])
    with tf.GradientTape() as tape:
        target = ops.td_target(tf.constant([1.0]), tf.constant([0.5]), value * 2.0)
    assert tape.gradient(target, value) is None


def test_take_action_and_greedy_action():
    q_values = np.array([[1.0, 5.0, 3.0], [7.0, 2.0, 7.0]], np.float32)
    np.testing.assert_array_equal(ops.greedy_action(q_values), [1, 0])
    np.testing.assert_array_equal(ops.take_action(q_values, np.array([2, 1], np.int32)), [3.0, 2.0])


def test_take_action_picks_along_the_action_axis():
    # [B, A, N]: were it the last axis, the second row would give 98 and the first an N too few.
    values = np.array([[[1.0, 2.0], [NAN, NAN], [5.0, 6.0]], [[99.0, 98.0], [3.0, 4.0], [99, 98]]])
    taken = ops.take_action(values, np.array([2, 1]))
    np.testing.assert_array_equal(taken, [[5.0, 6.0], [3.0, 4.0]])


def test_take_action_has_a_gradient_for_the_action_taken_alone():
    values = tf.Variable([[[1.0, 2.0], [3.0, 4.0]]])
    with tf.GradientTape() as tape:
        taken = ops.take_action(values.value(), tf.constant([1]))
    np.testing.assert_array_equal(
        tf.convert_to_tensor(tape.gradient(taken, values)), [[[0.0, 0.0], [1.0, 1.0]]]
    )


def test_mix_actions_by_hand():
    values = np.array([[[1.0, 2.0], [3.0, 6.0], [NAN, NAN]]], np.float32)
    weights = np.array([[0.25, 0.75, 0.0]], np.float32)
    # 0.25 * 1 + 0.75 * 3 and 0.25 * 2 + 0.75 * 6; the third action has weight 0.
    np.testing.assert_allclose(ops.mix_actions(values, weights), [[2.5, 5.0]])


def test_value_of_choice_takes_integers_and_weights():
    values = np.array([[[1.0], [3.0]], [[5.0], [7.0]]], np.float32)
    np.testing.assert_array_equal(ops.value_of_choice(values, np.array([1, 0])), [[3.0], [5.0]])
    weights = np.array([[0.5, 0.5], [0.0, 1.0]], np.float32)
    np.testing.assert_array_equal(ops.value_of_choice(values, weights), [[2.0], [7.0]])


def test_guard_terminal_is_finite_and_of_mass_one():
    values = np.array([[NAN, 1.0], [0.25, 0.75]], np.float32)
    guarded = ops.guard_terminal(values, np.array([0.0, 0.5], np.float32))
    np.testing.assert_array_equal(guarded, [[0.5, 0.5], [0.25, 0.75]])


B, BA, BAN = np.zeros(2), np.zeros((2, 3)), np.zeros((2, 3, 4))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: ops.td_target(BA, B, B), "reward"),
        (lambda: ops.td_target(B, BA, B), "discount"),
        (lambda: ops.td_target(B, B, BAN), "next_value"),
        (lambda: ops.greedy_action(B), "q_values"),
        (lambda: ops.take_action(B, B.astype(int)), "values"),
        (lambda: ops.take_action(BA, BA.astype(int)), "values"),
        (lambda: ops.take_action(BAN, BAN.astype(int)), "action"),
        (lambda: ops.mean_over_branches(BAN, 1), "values"),
        (lambda: ops.take_action(BA, B), "action"),
        (lambda: ops.mix_actions(BA, BA), "values"),
        (lambda: ops.mix_actions(BAN, B), "weights"),
        (lambda: ops.value_of_choice(BA, B), "values"),
        (lambda: ops.guard_terminal(B, B), "next_value"),
        (lambda: ops.guard_terminal(BA, BA), "discount"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_rank_or_dtype_is_refused(call, name):
    with pytest.raises(ValueError, match=rf"`{name}` must .* Received: (shape|dtype)="):
        call()
