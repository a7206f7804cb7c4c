"""Pure tensor functions of deep Q-learning, written in `keras.ops`; the batch axis comes first."""

from keras_dqn.ops.td import greedy_action as greedy_action
from keras_dqn.ops.td import guard_terminal as guard_terminal
from keras_dqn.ops.td import mix_actions as mix_actions
from keras_dqn.ops.td import take_action as take_action
from keras_dqn.ops.td import td_target as td_target
from keras_dqn.ops.td import value_of_choice as value_of_choice
