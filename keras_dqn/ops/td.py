"""Temporal-difference arithmetic on tensors: B rows, A actions, N numbers for each action's value.

One function per rule. Ranks and dtypes are checked while tracing.
"""

from typing import Any

from keras import ops

from keras_dqn.ops.checks import check_integer, check_rank, is_integer


def td_target(reward: Any, discount: Any, next_value: Any) -> Any:
    """Computes the bootstrapped target of Q-learning; no gradient flows through it.

    ```
    target = reward + discount * next_value
    ```

    Args:
        reward: `[B]` float32, the (n-step) reward.
        discount: `[B]` float32, `gamma**m * (1 - terminated)`.
        next_value: `[B]` or `[B, N]` float32, the value of the observation after m steps.

    Returns:
        Float32, with the shape of `next_value`.

    Raises:
        ValueError: If a tensor has the wrong rank.

    Reference:
        Mnih et al., 2015, "Human-level control through deep reinforcement learning", Algorithm 1.
    """
    check_rank("reward", reward, 1)
    check_rank("discount", discount, 1)
    check_rank("next_value", next_value, 1, 2)
    if len(next_value.shape) == 2:
        reward, discount = ops.expand_dims(reward, -1), ops.expand_dims(discount, -1)
    return ops.stop_gradient(reward + discount * next_value)


def forbid_actions(q_values: Any, mask: Any) -> Any:
    """Returns action values with -inf where an action is forbidden; those values may be NaN.

    The result is for choices and softmaxes. It is never added to a value that is learned.

    Args:
        q_values: `[B, A]` float32, or `[B, D, A]` for D branches.
        mask: Integer, of the same shape, 0 where an action is forbidden.

    Returns:
        Float32, of the same shape.

    Raises:
        ValueError: If the shapes differ.
    """
    if tuple(mask.shape[1:]) != tuple(q_values.shape[1:]):
        raise ValueError(
            "The action mask must have the shape of the action values. Received: mask "
            f"{tuple(mask.shape)}, action values {tuple(q_values.shape)}"
        )
    return ops.where(ops.cast(mask, "bool"), q_values, -float("inf"))


def greedy_action(q_values: Any) -> Any:
    """Returns the greedy action of each row, `[B, A]` to `[B]` int32; of equal ones, the lowest.

    Action values of D branches are `[B, D, A]`, and their greedy actions `[B, D]`.

    For the online network's values, this is the choice of double Q-learning.

    Reference:
        van Hasselt et al., 2016, "Deep reinforcement learning with double Q-learning", equation 4.
    """
    check_rank("q_values", q_values, 2, 3)
    return ops.argmax(q_values, axis=-1)


def take_action(values: Any, action: Any) -> Any:
    """Picks the values of one action in each row; the values of other actions may be NaN.

    Args:
        values: `[B, A, ...]`, or `[B, D, A, ...]` for D branches.
        action: `[B]` integer in `[0, A)`, or `[B, D]`.

    Returns:
        `[B, ...]` or `[B, D, ...]`, with the dtype of `values`.

    Raises:
        ValueError: If `action` is not integer, a rank is wrong, or `values` has no action axis.
    """
    check_rank("action", action, 1, 2)
    check_integer("action", action)
    axis = len(action.shape)
    check_rank("values", values, *range(axis + 1, axis + 4))
    index = ops.reshape(action, (-1, *action.shape[1:], *[1] * (len(values.shape) - axis)))
    return ops.squeeze(ops.take_along_axis(values, index, axis=axis), axis)


def mix_actions(values: Any, weights: Any) -> Any:
    """Averages values over actions; the values of an action with weight 0 may be NaN.

    ```
    sum_a weights(a) * values(a)
    ```

    Args:
        values: `[B, A, N]` float32, or `[B, D, A, N]` for D branches.
        weights: `[B, A]` or `[B, D, A]` float32; each row has the sum 1.

    Returns:
        `[B, N]` or `[B, D, N]` float32.

    Raises:
        ValueError: If a tensor has the wrong rank.

    Reference:
        van Seijen et al., 2009, "A theoretical and empirical analysis of Expected Sarsa".
    """
    check_rank("values", values, 3, 4)
    check_rank("weights", weights, len(values.shape) - 1)
    weights = ops.expand_dims(weights, -1)
    return ops.sum(ops.where(weights > 0, weights * values, 0.0), axis=-2)


def value_of_choice(values: Any, choice: Any) -> Any:
    """Returns the value of a choice: `take_action` for integers, `mix_actions` for weights.

    Args:
        values: `[B, A, N]` float32, or `[B, D, A, N]` for D branches.
        choice: `[B]` (or `[B, D]`) integer actions, or `[B, A]` (or `[B, D, A]`) float32 weights;
            each row has the sum 1.

    Returns:
        `[B, N]` or `[B, D, N]` float32.

    Raises:
        ValueError: If a tensor has the wrong rank.
    """
    check_rank("values", values, 3, 4)
    return take_action(values, choice) if is_integer(choice) else mix_actions(values, choice)


def mean_over_branches(values: Any, rank: int) -> Any:
    """Returns `[B, ...]` for `[B, D, ...]`: the mean over D branches, if there are any.

    Args:
        values: `[B, ...]` or `[B, D, ...]` float32.
        rank: Int, the rank without branches.

    Reference:
        Tavakoli et al., 2018, "Action branching architectures for deep reinforcement learning",
        equation 5: the target is the mean over branches.
    """
    check_rank("values", values, rank, rank + 1)
    return ops.mean(values, axis=1) if len(values.shape) > rank else values


def guard_terminal(next_value: Any, discount: Any) -> Any:
    """Replaces the values of rows with discount 0, even if they are NaN, by `1 / N`.

    The product with the discount is then 0. If `next_value` is a distribution over N atoms, its
    rows still have the sum 1.

    Args:
        next_value: `[B, N]` float32.
        discount: `[B]` float32.

    Returns:
        `[B, N]` float32.

    Raises:
        ValueError: If a tensor has the wrong rank.
    """
    check_rank("next_value", next_value, 2)
    check_rank("discount", discount, 1)
    continues = ops.expand_dims(discount, -1) > 0
    return ops.where(continues, next_value, 1.0 / next_value.shape[-1])
