"""Deep Q-learning as plain Keras."""

from keras_dqn import layers as layers
from keras_dqn import losses as losses
from keras_dqn import networks as networks
from keras_dqn import ops as ops
from keras_dqn.acting.action_mask_observation import ActionMaskObservation
from keras_dqn.acting.collector import Collector
from keras_dqn.acting.exploration import (
    Boltzmann,
    EpsilonGreedy,
    EpsilonZGreedy,
    Greedy,
    NoisyGreedy,
)
from keras_dqn.acting.policy import Policy
from keras_dqn.callbacks.collect_transitions import CollectTransitions
from keras_dqn.callbacks.evaluate_policy import EvaluatePolicy
from keras_dqn.callbacks.learning_curve import LearningCurve
from keras_dqn.callbacks.priority_feedback import PriorityFeedback
from keras_dqn.callbacks.soft_target_update import SoftTargetUpdate
from keras_dqn.callbacks.training_checkpoint import TrainingCheckpoint
from keras_dqn.models.categorical_dqn import CategoricalDQN
from keras_dqn.models.dqn import DQN
from keras_dqn.models.fitted_q_evaluation import FittedQEvaluation
from keras_dqn.models.hl_gauss_dqn import HLGaussDQN
from keras_dqn.models.implicit_quantile_dqn import ImplicitQuantileDQN
from keras_dqn.models.munchausen import Munchausen
from keras_dqn.models.quantile_dqn import QuantileDQN
from keras_dqn.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from keras_dqn.replay.replay_buffer import ReplayBuffer
from keras_dqn.replay.replay_dataset import ReplayDataset
from keras_dqn.schedules import ExponentialSchedule, LinearSchedule
from keras_dqn.soft_update import soft_update

__version__ = "0.1.0"

__all__ = [
    "DQN",
    "ActionMaskObservation",
    "Boltzmann",
    "CategoricalDQN",
    "CollectTransitions",
    "Collector",
    "EpsilonGreedy",
    "EpsilonZGreedy",
    "EvaluatePolicy",
    "ExponentialSchedule",
    "FittedQEvaluation",
    "Greedy",
    "HLGaussDQN",
    "ImplicitQuantileDQN",
    "LearningCurve",
    "LinearSchedule",
    "Munchausen",
    "NoisyGreedy",
    "Policy",
    "PrioritizedReplayBuffer",
    "PriorityFeedback",
    "QuantileDQN",
    "ReplayBuffer",
    "ReplayDataset",
    "SoftTargetUpdate",
    "TrainingCheckpoint",
    "soft_update",
]
