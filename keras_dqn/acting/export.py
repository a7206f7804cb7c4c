"""The greedy policy of a network as a Keras model of its own, and its `keras.Model.export`."""

import re
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_dqn.networks.inspection import input_shape_of


class GreedyPolicy(keras.Model):
    """Maps observations `[B, ...]` (or a dict of such) to greedy actions `[B]` int64, 0-based.

    Args:
        network: The built network; layers that preprocess observations are part of it.
        q_values: Function of the network's outputs that returns `[B, A]`.
    """

    def __init__(self, network: keras.layers.Layer, q_values: Callable[[Any], Any]) -> None:
        super().__init__(name="policy", dtype="float32")
        self.network = network
        self._q_values = q_values

    def call(self, observation: Any) -> tf.Tensor:
        """Returns the actions."""
        q_values = self._q_values(self.network(observation, training=False))
        return tf.argmax(q_values, axis=-1)  # Keras' argmax holds operations that LiteRT has not


def write_policy(
    network: keras.layers.Layer,
    q_values: Callable[[Any], Any],
    filepath: Any,
    format: str,
    **kwargs: Any,
) -> None:
    """Exports the greedy policy of a network, as `DQN.export_policy` says."""
    if not network.built:
        raise ValueError(
            "The agent must be built before it is exported: give the network a `keras.Input`, or "
            f"call `agent.act(observation)` once. Received: network={network}"
        )
    spec = _observation_spec(network)
    policy = GreedyPolicy(network, q_values)
    policy(keras.tree.map_structure(_zeros, spec))  # Keras exports a model that was called
    kwargs.setdefault("input_signature", [spec])
    policy.export(filepath, format=format, **kwargs)


def _observation_spec(network: keras.layers.Layer) -> Any:
    """Returns the shapes and dtypes of a network's own inputs; float32 if it names none."""
    if isinstance(network, keras.Sequential):
        inputs: Any = network.inputs
    elif hasattr(network, "inputs"):
        inputs = network.input
    else:
        inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape_of(network))
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        (inputs,) = inputs
    return _named_spec(inputs, "")


def _named_spec(inputs: Any, name: str) -> Any:
    if isinstance(inputs, dict):
        return {key: _named_spec(value, f"{name}_{key}") for key, value in inputs.items()}
    name = re.sub(r"\W", "_", name[1:]) or "observation"
    return tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype, name)


def _zeros(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([size or 1 for size in spec.shape], spec.dtype)
