"""A network as a LiteRT program whose inputs are the weights and the observations.

It applies where LiteRT is installed (the extra `fast`), no layer is a convolution (the compiled
call is faster there), all layers compute in float32, and LiteRT's converter knows every operation.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_dqn.networks.inspection import has_convolutions, layers_of

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    Interpreter = None

_NARROW = {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.int64): np.dtype(np.int32)}


class LiteRTProgram:
    """Runs the program for one shape of observations.

    Args:
        values_of: Function of `(weights, observation)`, tensors to `[E, A]`.
        weights: List of arrays, which tell the shapes and dtypes.
        observation: `[E, ...]` (or a dict of such), which tells its own.

    Raises:
        tf.errors.OpError, Exception: Whatever LiteRT's converter raises.
    """

    def __init__(self, values_of: Callable, weights: list[NDArray], observation: Any) -> None:
        leaves = [_narrow(np.asarray(leaf)) for leaf in keras.tree.flatten(observation)]

        def program(*inputs: tf.Tensor) -> tf.Tensor:
            values = keras.tree.pack_sequence_as(observation, list(inputs[len(weights) :]))
            return values_of(list(inputs[: len(weights)]), values)

        specs = [
            tf.TensorSpec(array.shape, array.dtype, name=f"input{i}")
            for i, array in enumerate([*weights, *leaves])
        ]
        concrete = tf.function(program, autograph=False).get_concrete_function(*specs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
        content = converter.convert()
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        index = {
            _argument_of(detail["name"]): detail["index"]
            for detail in self._interpreter.get_input_details()
        }
        # The converter drops inputs that the values do not depend on.
        self._weights = [index.get(f"input{i}") for i in range(len(weights))]
        self._leaves = [
            (index.get(f"input{len(weights) + i}"), leaf.dtype) for i, leaf in enumerate(leaves)
        ]
        (output,) = self._interpreter.get_output_details()
        self._output = output["index"]
        self.set_weights(weights)

    def set_weights(self, weights: list[NDArray]) -> None:
        """Takes the weights of the calls to come."""
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


def why_not_litert(network: keras.layers.Layer) -> str:
    """Returns why a network does not meet the rule above, the converter's word excepted, or ""."""
    if Interpreter is None:
        return "LiteRT, the extra `fast`, is not installed"
    if has_convolutions(network):
        return "the network has convolutions, for which the compiled call is faster"
    dtypes = {layer.compute_dtype for layer in layers_of(network)} - {"float32"}
    return f"a layer computes in {min(dtypes)}, not float32" if dtypes else ""


def _argument_of(tensor_name: str) -> str:
    """Returns `"input3"` for the converter's name of it, `"serving_default_input3:0"`."""
    return tensor_name.split(":")[0].removeprefix("serving_default_")


def _narrow(array: NDArray) -> NDArray:
    return array.astype(_NARROW.get(array.dtype, array.dtype))
