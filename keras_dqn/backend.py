"""The TensorFlow calls that models need. Another backend would need other calls."""

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
    """Compiles a function of tensors or arrays into one program."""
    return tf.function(function, autograph=False, reduce_retracing=True)


def compiled_for_number(function: Callable[[Any], None]) -> Callable[[float], Any]:
    """Compiles a function of one float64 scalar into one program that has little call overhead."""
    program = tf.function(function, autograph=False, jit_compile=True)
    concrete = program.get_concrete_function(tf.TensorSpec((), tf.float64))
    return lambda number: concrete(tf.constant(number, tf.float64))


def outside_graph() -> AbstractContextManager:
    """Returns a context that assigns weights immediately, even while a step is traced."""
    return tf.init_scope()


def runs_at_once() -> bool:
    """Returns whether operations run immediately (not in a graph) and on one device."""
    return tf.executing_eagerly() and not tf.distribute.has_strategy()
