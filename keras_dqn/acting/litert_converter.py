"""Converts a network to a LiteRT program whose inputs are the weights and the observations.

A policy uses it if LiteRT is installed (the extra `fast`), no layer is a convolution (a compiled
call is faster there), all layers compute in float32, and LiteRT can convert every operation.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_dqn.acting import litert_program
from keras_dqn.acting.litert_program import LiteRTProgram, narrow
from keras_dqn.acting.native_log import native_log_silenced
from keras_dqn.acting.observations import leaves_of, with_leaves
from keras_dqn.networks.inspection import has_convolutions, layers_of


class LiteRTConverter:
    """Makes the programs of one function; one conversion serves any number of environments.

    If the converter must know the number (as for the loop of an LSTM), it converts once for each.

    Args:
        values_of: Function of `(weights, observation)`, tensors to `[E, A]`.
    """

    def __init__(self, values_of: Callable) -> None:
        self._values_of = values_of
        self._contents: dict[tuple, bytes | None] = {}

    def program(self, weights: list[NDArray], observation: Any) -> LiteRTProgram:
        """Returns the program for observations of this shape and dtype.

        Args:
            weights: List of arrays.
            observation: `[E, ...]` (or a dict of arrays).

        Raises:
            tf.errors.OpError, Exception: Any error of LiteRT's converter.
        """
        leaves = leaves_of(observation)
        kind = tuple((leaf.shape[1:], leaf.dtype.char) for leaf in leaves)
        if kind not in self._contents:
            try:
                self._contents[kind] = self.convert(weights, observation, None)
            except Exception:  # the converter's errors have no common class
                self._contents[kind] = None
        content = self._contents[kind] or self.convert(weights, observation, leaves[0].shape[0])
        return LiteRTProgram(content, weights, observation)

    def convert(self, weights: list[NDArray], observation: Any, num_envs: int | None) -> bytes:
        """Returns the converted function for observations of this shape and dtype.

        Args:
            weights: List of arrays.
            observation: `[E, ...]` (or a dict of arrays).
            num_envs: Int, E, or None for any.

        Raises:
            tf.errors.OpError, Exception: Any error of LiteRT's converter.
        """
        leaves = [narrow(np.asarray(leaf)) for leaf in leaves_of(observation)]

        def program(*inputs: tf.Tensor) -> tf.Tensor:
            values = with_leaves(observation, iter(inputs[len(weights) :]))
            return self._values_of(list(inputs[: len(weights)]), values)

        shapes = [w.shape for w in weights] + [(num_envs, *leaf.shape[1:]) for leaf in leaves]
        specs = [
            tf.TensorSpec(shape, array.dtype, name=f"input{i}")
            for i, (shape, array) in enumerate(zip(shapes, [*weights, *leaves], strict=True))
        ]
        with native_log_silenced():
            concrete = tf.function(program, autograph=False).get_concrete_function(*specs)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
            converter.experimental_lower_to_saved_model = False  # no files: half the time
            return converter.convert()


def why_not_litert(network: keras.layers.Layer) -> str:
    """Returns why the rule above excludes LiteRT, or ""; the converter is not tried here."""
    if litert_program.Interpreter is not None and has_convolutions(network):
        return "the network has convolutions, for which the compiled call is faster"
    return why_not_convertible(network)


def why_not_convertible(network: keras.layers.Layer) -> str:
    """Returns why LiteRT cannot run a network at all, or ""; the converter is not tried here."""
    if litert_program.Interpreter is None:
        return "LiteRT, the extra `fast`, is not installed"
    dtypes = {layer.compute_dtype for layer in layers_of(network)} - {"float32"}
    return f"a layer computes in {min(dtypes)}, not float32" if dtypes else ""
