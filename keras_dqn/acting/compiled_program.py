"""Computes a network's action values in one compiled TensorFlow call."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray


class CompiledProgram:
    """Runs a compiled function; observations may have any shape.

    Args:
        values_of: Function of `(weights, observation)`, tensors to `[E, A]`.
    """

    def __init__(self, values_of: Callable) -> None:
        self._function = tf.function(values_of, autograph=False, reduce_retracing=True)
        self._weights: list = []

    def set_weights(self, weights: list[NDArray]) -> None:
        """Sets the weights for the next calls."""
        self._weights = [tf.constant(weight) for weight in weights]

    def __call__(self, observation: Any) -> NDArray:
        """Returns `[E, A]` float32 for observations `[E, ...]`."""
        tensors = keras.tree.map_structure(tf.convert_to_tensor, observation)
        return self._function(self._weights, tensors).numpy()
