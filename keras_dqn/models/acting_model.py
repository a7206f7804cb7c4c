"""A model whose network's outputs stand for action values: it acts, and exports how it acts."""

from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dqn.acting.export import write_policy
from keras_dqn.acting.policy import Policy
from keras_dqn.models.target_network_model import TargetNetworkModel


class ActingModel(TargetNetworkModel):
    """Takes the action of the highest value; a subclass says what the values are by `q_values`."""

    def q_values(self, outputs: Any) -> Any:
        """Returns the action values `[B, A]` float32 that the network's outputs stand for."""
        raise NotImplementedError

    def act(self, observation: Any) -> np.ndarray:
        """Returns the greedy actions, read from the network as it is now.

        Args:
            observation: `[E, ...]` (or a dict of such), or one observation without batch axis.
                While the network is not built yet, its first axis is taken for the batch.

        Returns:
            `[E]` int64, or a 0-d int64 array; 0-based: an environment with a `Discrete.start`
            wants it added.
        """
        values = self._act_values(observation)
        return np.asarray(values.argmax(axis=-1))

    def policy(self) -> Policy:
        """Returns a snapshot of the network for fast acting; `refresh()` reads it again."""
        return Policy(self)

    def export_policy(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Writes the greedy policy as a program that needs neither Keras nor this package.

        It maps observations `[B, ...]` to the actions of `act`, `[B]` int64. Layers of the network
        that preprocess observations are part of it.

        Args:
            filepath: String or path.
            format: `"tf_saved_model"`, `"onnx"` (needs the extra `onnx`), `"litert"` or what else
                `keras.Model.export` knows. Defaults to `"tf_saved_model"`.
            **kwargs: Further arguments of `keras.Model.export`, `input_signature` among them: a
                network without `keras.Input` is exported for float32 observations.

        Raises:
            ValueError: If the agent is not built, or Keras does not know the format.
            ImportError: If Keras lacks what it needs for the format.
        """
        write_policy(self.network, self.q_values, filepath, format, **kwargs)

    def _act_values(self, observation: Any) -> np.ndarray:
        observation = keras.tree.map_structure(np.asarray, observation)
        self.build_for(observation)
        if keras.tree.flatten(observation)[0].ndim == self._observation_rank:
            one = keras.tree.map_structure(lambda a: a[None], observation)
            return self._compiled_values(one).numpy()[0]
        return self._compiled_values(observation).numpy()

    @cached_property
    def _compiled_values(self) -> Any:
        @tf.function(autograph=False, reduce_retracing=True)
        def values(observation: Any) -> tf.Tensor:
            return self.q_values(self(observation, training=False))

        return values
