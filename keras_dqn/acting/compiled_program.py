"""A network's action values as one compiled TensorFlow call."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray


class CompiledProgram:
    """Runs the program for observations of any shape.

    Args:
        values_of: Function of `(weights, observation)`, tensors to `[E, A]`.
    """

    def __init__(self, values_of: Callable) -> None:
        self._function = tf.function(values_of, autograph=False, reduce_retracing=True)
        self._weights: list = []

    def set_weights(self, weights: list[NDArray]) -> None:
        """Takes the weights of the calls to come."""
        self._weights = [tf.constant(weight) for weight in weights]

    def __call__(self, observation: Any) -> NDArray:
        """Returns `[E, A]` float32 for observations `[E, ...]`."""
        tensors = keras.tree.map_structure(tf.convert_to_tensor, observation)
        return self._function(self._weights, tensors).numpy()
