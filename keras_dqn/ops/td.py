"""One-step temporal-difference arithmetic on tensors: `[B]` rewards, `[B, A]` action values."""

from typing import Any

from keras import ops


def td_target(reward: Any, discount: Any, next_value: Any) -> Any:
    """Computes the bootstrapped target of Q-learning.

    ```
    target = reward + discount * next_value
    ```

    Args:
        reward: `[B]` float32, the (n-step) reward.
        discount: `[B]` float32, `gamma**m * (1 - terminated)`.
        next_value: `[B]` float32, the value of the observation after m steps.

    Returns:
        `[B]` float32.

    Reference:
        Mnih et al., 2015, "Human-level control through deep reinforcement learning", Algorithm 1.
    """
    return reward + discount * next_value


def greedy_action(q_values: Any) -> Any:
    """Returns each row's greedy action, `[B, A]` to `[B]` int32; ties go to the lowest."""
    return ops.argmax(q_values, axis=-1)


def take_action(values: Any, action: Any) -> Any:
    """Picks the value of one action per row.

    Args:
        values: `[B, A]` float.
        action: `[B]` integer in `[0, A)`.

    Returns:
        `[B]`, of the dtype of `values`.
    """
    return ops.squeeze(ops.take_along_axis(values, ops.expand_dims(action, -1), axis=-1), -1)
