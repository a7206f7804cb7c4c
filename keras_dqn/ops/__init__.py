"""Pure tensor functions of deep Q-learning, written in `keras.ops`; the batch axis comes first."""

from keras_dqn.ops.categorical import gaussian_histogram as gaussian_histogram
from keras_dqn.ops.categorical import kl_divergence as kl_divergence
from keras_dqn.ops.categorical import project as project
from keras_dqn.ops.quantiles import midpoints as midpoints
from keras_dqn.ops.quantiles import quantile_huber as quantile_huber
from keras_dqn.ops.rules import conservative_penalty as conservative_penalty
from keras_dqn.ops.rules import munchausen_bonus as munchausen_bonus
from keras_dqn.ops.rules import scaled_entropy as scaled_entropy
from keras_dqn.ops.rules import scaled_log_policy as scaled_log_policy
from keras_dqn.ops.rules import soft_policy as soft_policy
from keras_dqn.ops.td import greedy_action as greedy_action
from keras_dqn.ops.td import guard_terminal as guard_terminal
from keras_dqn.ops.td import mix_actions as mix_actions
from keras_dqn.ops.td import take_action as take_action
from keras_dqn.ops.td import td_target as td_target
from keras_dqn.ops.td import value_of_choice as value_of_choice
