"""A network as a LiteRT program whose inputs are the weights and the observations.

A policy uses it if LiteRT is installed (the extra `fast`), no layer is a convolution (a compiled
call is faster there), all layers compute in float32, and LiteRT can convert every operation.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_dqn.acting.native_log import native_log_silenced
from keras_dqn.networks.inspection import has_convolutions, layers_of

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    Interpreter = None

_NARROW = {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.int64): np.dtype(np.int32)}


class LiteRTProgram:
    """Runs a converted network for one shape of observations.

    Args:
        content: The converted network.
        weights: List of arrays.
        observation: `[E, ...]` (or a dict of arrays), an example of the shapes and dtypes.
    """

    def __init__(self, content: bytes, weights: list[NDArray], observation: Any) -> None:
        leaves = [_narrow(np.asarray(leaf)) for leaf in keras.tree.flatten(observation)]
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        index = {
            _argument_of(detail["name"]): detail["index"]
            for detail in self._interpreter.get_input_details()
        }
        # The converter drops inputs that the values do not depend on.
        self._weights = [index.get(f"input{i}") for i in range(len(weights))]
        self._leaves = [
            (index.get(f"input{len(weights) + i}"), leaf.dtype) for i, leaf in enumerate(leaves)
        ]
        for (leaf_index, _), leaf in zip(self._leaves, leaves, strict=True):
            if leaf_index is not None:
                self._interpreter.resize_tensor_input(leaf_index, leaf.shape)
        with native_log_silenced():
            self._interpreter.allocate_tensors()
        (output,) = self._interpreter.get_output_details()
        self._output = output["index"]
        self.set_weights(weights)

    def set_weights(self, weights: list[NDArray]) -> None:
        """Sets the weights for the next calls."""
        for index, weight in zip(self._weights, weights, strict=True):
            if index is not None:
                self._interpreter.set_tensor(index, weight)

    def __call__(self, observation: Any) -> NDArray:
        """Returns `[E, A]` float32 for observations `[E, ...]`."""
        interpreter = self._interpreter
        leaves = [observation] if len(self._leaves) == 1 else keras.tree.flatten(observation)
        for (index, dtype), leaf in zip(self._leaves, leaves, strict=True):
            if index is not None:
                interpreter.set_tensor(index, np.asarray(leaf, dtype))
        interpreter.invoke()
        return interpreter.get_tensor(self._output)


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
        leaves = keras.tree.flatten(observation)
        kind = tuple((leaf.shape[1:], leaf.dtype.char) for leaf in leaves)
        if kind not in self._contents:
            try:
                self._contents[kind] = self._convert(weights, observation, None)
            except Exception:  # the converter's errors have no common class
                self._contents[kind] = None
        content = self._contents[kind] or self._convert(weights, observation, leaves[0].shape[0])
        return LiteRTProgram(content, weights, observation)

    def _convert(self, weights: list[NDArray], observation: Any, num_envs: int | None) -> bytes:
        leaves = [_narrow(np.asarray(leaf)) for leaf in keras.tree.flatten(observation)]

        def program(*inputs: tf.Tensor) -> tf.Tensor:
            values = keras.tree.pack_sequence_as(observation, list(inputs[len(weights) :]))
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
    if Interpreter is None:
        return "LiteRT, the extra `fast`, is not installed"
    if has_convolutions(network):
        return "the network has convolutions, for which the compiled call is faster"
    dtypes = {layer.compute_dtype for layer in layers_of(network)} - {"float32"}
    return f"a layer computes in {min(dtypes)}, not float32" if dtypes else ""


def _argument_of(tensor_name: str) -> str:
    """Returns `"input3"` for the name `"serving_default_input3:0"` that the converter gives it."""
    return tensor_name.split(":")[0].removeprefix("serving_default_")


def _narrow(array: NDArray) -> NDArray:
    return array.astype(_NARROW.get(array.dtype, array.dtype))
