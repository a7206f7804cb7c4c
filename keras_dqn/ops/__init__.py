"""Pure tensor functions of deep Q-learning, written in `keras.ops`; the batch axis comes first."""

from keras_dqn.ops.categorical import gaussian_histogram, kl_divergence, project
from keras_dqn.ops.quantiles import midpoints, quantile_huber
from keras_dqn.ops.rules import (
    conservative_penalty,
    munchausen_bonus,
    scaled_entropy,
    scaled_log_policy,
    soft_policy,
)
from keras_dqn.ops.td import (
    forbid_actions,
    greedy_action,
    guard_terminal,
    mean_over_branches,
    mix_actions,
    take_action,
    td_target,
    value_of_choice,
)

__all__ = [
    "conservative_penalty",
    "forbid_actions",
    "gaussian_histogram",
    "greedy_action",
    "guard_terminal",
    "kl_divergence",
    "mean_over_branches",
    "midpoints",
    "mix_actions",
    "munchausen_bonus",
    "project",
    "quantile_huber",
    "scaled_entropy",
    "scaled_log_policy",
    "soft_policy",
    "take_action",
    "td_target",
    "value_of_choice",
]
