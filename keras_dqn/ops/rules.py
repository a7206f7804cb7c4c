"""Rules that change rewards or losses, on action values `[B, A]`; -inf marks a forbidden action.

For D branches, action values are `[B, D, A]`, actions and results `[B, D]`.
"""

from typing import Any

from keras import ops

from keras_dqn.ops.checks import check_rank
from keras_dqn.ops.td import forbid_actions, take_action


def soft_policy(q_values: Any, temperature: float) -> Any:
    """Returns the probabilities `softmax(Q / temperature)`, `[B, A]` float32."""
    check_rank("q_values", q_values, 2, 3)
    return ops.softmax(q_values / temperature, axis=-1)


def scaled_log_policy(q_values: Any, temperature: float) -> Any:
    """Returns `temperature * log softmax(Q / temperature)`, `[B, A]` float32, at most 0.

    Reference:
        Vieillard et al., 2020, "Munchausen reinforcement learning", appendix B.1.
    """
    check_rank("q_values", q_values, 2, 3)
    return temperature * ops.log_softmax(q_values / temperature, axis=-1)


def scaled_entropy(q_values: Any, temperature: float) -> Any:
    """Returns `temperature *` the entropy of `soft_policy`, `[B]` float32, at least 0."""
    policy = soft_policy(q_values, temperature)
    log_policy = scaled_log_policy(q_values, temperature)  # -inf where the probability is 0
    return -ops.sum(ops.where(policy > 0, policy * log_policy, 0.0), axis=-1)


def munchausen_bonus(
    q_values: Any, action: Any, alpha: float, temperature: float, clip: float
) -> Any:
    """Computes what Munchausen Q-learning adds to the reward of an action.

    ```
    bonus = alpha * max(clip, temperature * log pi(action | observation))
    ```

    Args:
        q_values: `[B, A]` float32, of the target network for the observation.
        action: `[B]` integer, the actions taken.
        alpha: Float in [0, 1].
        temperature: Float above 0, in units of return.
        clip: Float below 0, in units of return.

    Returns:
        `[B]` float32, at most 0.

    Reference:
        Vieillard et al., 2020, "Munchausen reinforcement learning", equation 1 and section 3.
    """
    log_policy = take_action(scaled_log_policy(q_values, temperature), action)
    return alpha * ops.maximum(log_policy, clip)


def conservative_penalty(q_values: Any, action: Any, mask: Any = None) -> Any:
    """Computes how much larger all action values are than the value of the action in the data.

    ```
    penalty = log sum_a exp(Q(a)) - Q(action)
    ```

    Args:
        q_values: `[B, A]` float32, of the online network.
        action: `[B]` integer, the actions in the data.
        mask: `[B, A]` integer, 0 where an action is forbidden and does not count, or None. Defaults
            to `None`.

    Returns:
        `[B]` float32, above 0.

    Reference:
        Kumar et al., 2020, "Conservative Q-learning for offline reinforcement learning",
        equation 4, CQL(H).
    """
    check_rank("q_values", q_values, 2, 3)
    allowed = q_values if mask is None else forbid_actions(q_values, mask)
    return ops.logsumexp(allowed, axis=-1) - take_action(q_values, action)
