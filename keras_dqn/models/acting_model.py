"""`ActingModel`: a model with a target network that acts, greedily by its action values."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_dqn import ops
from keras_dqn.acting.exact_values import ExactValues
from keras_dqn.acting.export import write_policy
from keras_dqn.acting.policy import Policy
from keras_dqn.arguments import check_type
from keras_dqn.models.checks import check_network_fits, takes_third_argument
from keras_dqn.models.target_network_model import TargetNetworkModel
from keras_dqn.spaces.action_mask import (
    check_some_allowed,
    existing_actions,
    forbid,
    forbid_missing,
    mask_of,
    without_mask,
)
from keras_dqn.spaces.action_spec import greedy_actions
from keras_dqn.trainers.xla import xla_pays


class ActingModel(TargetNetworkModel):
    """Acts with its network. A subclass says in `q_values` what the outputs of a network mean.

    Args:
        network: Keras model or layer.
        action_mask: String, the key of the action mask in Dict observations, or None. Defaults to
            `None`.
        **kwargs: Arguments of `TargetNetworkModel`.

    Raises:
        TypeError: If `action_mask` is not a string or None.
    """

    def __init__(
        self, network: keras.layers.Layer, *, action_mask: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(network, **kwargs)
        if action_mask is not None:
            check_type("action_mask", action_mask, str, "the key of the mask, or None")
        self.action_mask = action_mask

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "action_mask": self.action_mask}

    def build(self, input_shape: Any) -> None:
        """Builds both networks for the shapes of observations, with the action mask or without."""
        super().build(self.inputs_of(input_shape))

    def inputs_of(self, observation: Any) -> Any:
        """Returns an observation without the action mask, for `outputs_of`."""
        return without_mask(observation, self.action_mask)

    def q_values(self, outputs: Any) -> Any:
        """Returns the action values `[B, A]` float32 that a network's outputs stand for."""
        raise NotImplementedError

    def mask_of_actions(self, observation: Any) -> Any:
        """Returns which actions there are and are allowed, `[B, A]` int8, or None for all.

        With branches it is `[B, D, A]`; B is 1 if no action mask is in the observations.
        """
        mask = None if self.action_mask is None else mask_of(observation, self.action_mask)
        if self.branch_sizes is None:
            return mask
        exist = existing_actions(self.branch_sizes)[None].astype("int8")
        return exist if mask is None else keras.ops.cast(mask, "int8") * exist

    def mask_for(self, method: Callable, observation: Any) -> list:
        """Returns the third argument of a method, the mask of actions, if it takes one."""
        return [self.mask_of_actions(observation)] if takes_third_argument(method) else []

    def with_ends(self, transition: dict) -> dict:
        """Returns a transition with the discount 0 where no next action is allowed."""
        if self.action_mask is None:
            return transition
        mask = self.mask_of_actions(transition["next_observation"])
        some = keras.ops.any(keras.ops.cast(mask, "bool"), axis=-1)
        some = keras.ops.all(keras.ops.reshape(some, (keras.ops.shape(some)[0], -1)), axis=-1)
        return {**transition, "discount": keras.ops.where(some, transition["discount"], 0.0)}

    def allowed_values(self, outputs: Any, observation: Any) -> Any:
        """Returns the action values `[B, A]` float32, -inf where there is no action to take."""
        q_values, mask = self.q_values(outputs), self.mask_of_actions(observation)
        return q_values if mask is None else ops.forbid_actions(q_values, mask)

    def check_replay(self, replay: Any) -> None:
        """Raises a `ValueError` unless the network fits a buffer's spaces."""
        spec = check_network_fits(self, replay)
        self.action_start, self.branch_sizes = spec.start, spec.branch_sizes

    def act(self, observation: Any) -> np.ndarray:
        """Returns the greedy actions of the network with its present weights.

        Args:
            observation: `[E, ...]` (or a dict of arrays), or one observation without batch axis;
                before the network is built, the first axis is the batch axis.

        Returns:
            `[E]` int64, or a 0-d int64 array, numbered as in `env.step`: see `action_start`. For a
            MultiDiscrete space `[E, D]`, or `[D]`.

        Raises:
            ValueError: If an action mask leaves no action.
        """
        observation = keras.tree.map_structure(np.asarray, observation)
        self.build_for(observation)
        values = self._exact_values(self.inputs_of(observation), self._observation_rank)
        values = forbid_missing(values, self.branch_sizes)
        if self.action_mask is not None:
            values = forbid(values, mask_of(observation, self.action_mask))
            check_some_allowed(values != -np.inf)
        return np.asarray(greedy_actions(values) + np.array(self.action_start))

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
