"""Runs a network that `litert_converter` made: its inputs are the weights and the observations."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.acting.native_log import native_log_silenced
from keras_dqn.acting.observations import leaves_of

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
        leaves = [narrow(np.asarray(leaf)) for leaf in leaves_of(observation)]
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
        for (index, dtype), leaf in zip(self._leaves, leaves_of(observation), strict=True):
            if index is not None:
                interpreter.set_tensor(index, np.asarray(leaf, dtype))
        interpreter.invoke()
        return interpreter.get_tensor(self._output)


def narrow(array: NDArray) -> NDArray:
    """Returns float64 as float32 and int64 as int32, as the converted networks take them."""
    return array.astype(_NARROW.get(array.dtype, array.dtype))


def _argument_of(tensor_name: str) -> str:
    """Returns `"input3"` for the name `"serving_default_input3:0"` that the converter gives it."""
    return tensor_name.split(":")[0].removeprefix("serving_default_")
