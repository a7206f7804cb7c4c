"""Deep Q-learning as plain Keras."""

from keras_dqn import layers as layers
from keras_dqn.acting.collector import Collector
from keras_dqn.acting.exploration import Boltzmann, EpsilonGreedy, Greedy
from keras_dqn.acting.policy import Policy
from keras_dqn.callbacks.collect_transitions import CollectTransitions
from keras_dqn.callbacks.evaluate_policy import EvaluatePolicy
from keras_dqn.callbacks.learning_curve import LearningCurve
from keras_dqn.callbacks.priority_feedback import PriorityFeedback
from keras_dqn.callbacks.soft_target_update import SoftTargetUpdate
from keras_dqn.models.dqn import DQN
from keras_dqn.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from keras_dqn.replay.replay_buffer import ReplayBuffer
from keras_dqn.replay.replay_dataset import ReplayDataset
from keras_dqn.schedules import ExponentialSchedule, LinearSchedule
from keras_dqn.soft_update import soft_update

__version__ = "0.1.0"

__all__ = [
    "DQN",
    "Boltzmann",
    "CollectTransitions",
    "Collector",
    "EpsilonGreedy",
    "EvaluatePolicy",
    "ExponentialSchedule",
    "Greedy",
    "LearningCurve",
    "LinearSchedule",
    "Policy",
    "PrioritizedReplayBuffer",
    "PriorityFeedback",
    "ReplayBuffer",
    "ReplayDataset",
    "SoftTargetUpdate",
    "soft_update",
]
