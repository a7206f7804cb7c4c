"""`ActingModel`: a model with a target network that acts, greedily by its action values."""

from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_dqn.acting.exact_values import ExactValues
from keras_dqn.acting.export import write_policy
from keras_dqn.acting.policy import Policy
from keras_dqn.models.checks import check_network_fits
from keras_dqn.models.target_network_model import TargetNetworkModel
from keras_dqn.spaces.action_spec import greedy_actions
from keras_dqn.trainers.xla import xla_pays


class ActingModel(TargetNetworkModel):
    """Acts with its network. A subclass says in `q_values` what the outputs of a network mean.

    Args:
        *args: Arguments of `TargetNetworkModel`.
        **kwargs: Arguments of `TargetNetworkModel`.
    """

    def q_values(self, outputs: Any) -> Any:
        """Returns the action values `[B, A]` float32 that a network's outputs stand for."""
        raise NotImplementedError

    def check_replay(self, replay: Any) -> None:
        """Raises a `ValueError` unless the network fits a buffer's spaces."""
        self.action_start = check_network_fits(self, replay)

    def act(self, observation: Any) -> np.ndarray:
        """Returns the greedy actions of the network with its present weights.

        Args:
            observation: `[E, ...]` (or a dict of arrays), or one observation without batch axis;
                before the network is built, the first axis is the batch axis.

        Returns:
            `[E]` int64, or a 0-d int64 array, numbered as in `env.step`: see `action_start`.
        """
        observation = keras.tree.map_structure(np.asarray, observation)
        self.build_for(observation)
        values = self._exact_values(observation, self._observation_rank)
        return np.asarray(greedy_actions(values) + self.action_start)

    @cached_property
    def _exact_values(self) -> ExactValues:
        return ExactValues(self, xla_pays(self))

    def policy(self) -> Policy:
        """Returns a snapshot of the network for fast acting; `refresh()` reads it again."""
        return Policy(self)

    def export_policy(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Writes the greedy policy as a program that needs neither Keras nor this package.

        It maps observations `[B, ...]` to the actions of `act`, `[B]` int64.

        Args:
            filepath: String or path.
            format: `"tf_saved_model"`, `"onnx"` (needs the extra `onnx`), `"litert"` or another
                format of `keras.Model.export`. Defaults to `"tf_saved_model"`.
            **kwargs: Further arguments of `keras.Model.export`, such as `input_signature`. Without
                it, a network without `keras.Input` takes float32 observations.

        Raises:
            ValueError: If the agent is not built, or Keras does not know the format.
            ImportError: If a package that Keras needs for the format is missing.
        """
        write_policy(self, filepath, format, **kwargs)
