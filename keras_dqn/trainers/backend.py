"""The calls of TensorFlow that models need: another backend would have its own."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

if keras.config.backend() != "tensorflow":
    raise ImportError(
        "keras_dqn needs Keras' TensorFlow backend: set KERAS_BACKEND=tensorflow before Keras is "
        f"imported. Received: keras.config.backend()={keras.config.backend()!r}"
    )


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of tensors or arrays as one compiled program."""
    return tf.function(function, autograph=False, reduce_retracing=True)


def outside_graph() -> AbstractContextManager:
    """Returns a context in which weights are assigned at once, even while a step is traced."""
    return tf.init_scope()
