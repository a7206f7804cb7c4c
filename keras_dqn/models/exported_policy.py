"""The greedy policy of a network as a functional Keras model, and its `keras.Model.export`."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_dqn.models.network import input_shape_of


class GreedyAction(keras.layers.Layer):
    """Maps a network's outputs to greedy actions `[B]` int64, 0-based.

    Args:
        q_values: Function of the outputs that returns `[B, A]`.
    """

    def __init__(self, q_values: Callable[[Any], Any]) -> None:
        super().__init__()
        self._q_values = q_values

    def call(self, outputs: Any) -> tf.Tensor:
        """Returns the actions."""
        # Keras' argmax holds operations that LiteRT has not.
        return tf.argmax(self._q_values(outputs), axis=-1)

    def compute_output_spec(self, outputs: Any) -> keras.KerasTensor:
        """Returns the shape and dtype of the actions."""
        return keras.KerasTensor(outputs.shape[:1], "int64")


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
    inputs = _inputs_of(network)
    policy = keras.Model(inputs, GreedyAction(q_values)(network(inputs)), name="policy")
    policy(inputs)  # Keras' ONNX export asks that the model was called
    # Older versions of Keras would make a list of a dict of inputs.
    specs = keras.tree.map_structure(lambda i: tf.TensorSpec(i.shape, i.dtype, i.name), inputs)
    kwargs.setdefault("input_signature", [specs])
    policy.export(filepath, format=format, **kwargs)


def _inputs_of(network: keras.layers.Layer) -> Any:
    """Returns inputs of the shapes and dtypes of a network's own; float32 if it names none."""
    if isinstance(network, keras.Sequential):
        return _input(network.inputs[0])
    if hasattr(network, "inputs"):
        return _input(network.input)
    return _input(keras.tree.map_shape_structure(keras.KerasTensor, input_shape_of(network)))


def _input(like: Any, name: str = "observation") -> Any:
    if isinstance(like, dict):
        return {key: _input(value, key) for key, value in like.items()}
    return keras.Input(like.shape[1:], dtype=like.dtype, name=name)
