"""Computes a network's action values in NumPy, if its graph has only simple operations.

A policy uses it for stacks of Dense layers if the extra `fast` is not installed. NumPy needs about
10 microseconds, a compiled call 500.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_ZERO = np.float32(0)
_OPERATIONS: dict[str, Callable] = {
    "AddV2": np.add,
    "BiasAdd": np.add,
    "Cast": lambda x: x.astype(np.float32),
    "MatMul": np.matmul,
    "Maximum": np.maximum,
    "Mul": np.multiply,
    "Relu": lambda x: np.maximum(x, _ZERO),
    "Sub": np.subtract,
    "Tanh": np.tanh,
}


class NumPyProgram:
    """Runs the operations of a traced function, with one NumPy call for each operation.

    Args:
        values_of: Function of `(weights, observation)`, tensors to `[E, A]`.
        weights: List of arrays, with the shapes and dtypes of all later ones.
        observation: `[E, ...]` (or a dict of arrays), an example; only `E` may differ later.

    Raises:
        NotImplementedError: If the function needs operations or dtypes outside the table above.
    """

    def __init__(self, values_of: Callable, weights: list[NDArray], observation: Any) -> None:
        leaves = keras.tree.map_structure(
            lambda leaf: tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype), observation
        )
        specs = [tf.TensorSpec(weight.shape, weight.dtype) for weight in weights]
        concrete = tf.function(values_of, autograph=False).get_concrete_function(specs, leaves)
        if len(concrete.inputs) != len(weights) + len(keras.tree.flatten(observation)):
            raise NotImplementedError("NumPy has no program for a function that captures tensors")
        places = {tensor.ref(): i for i, tensor in enumerate(concrete.inputs)}
        self._constants: list[NDArray] = []
        self._steps: list[tuple[Callable, tuple[int, ...]]] = []
        operations = [op for op in concrete.graph.get_operations() if op.type != "Placeholder"]
        constants = [op for op in operations if op.type == "Const"]
        for op in constants:
            places[op.outputs[0].ref()] = len(places)
            self._constants.append(tf.make_ndarray(op.get_attr("value")))
        num_values = len(places)
        for op in operations:
            inputs = tuple(places[tensor.ref()] for tensor in op.inputs)
            if op.type == "Identity":
                places[op.outputs[0].ref()] = inputs[0]
            elif op.type not in ("Const", "NoOp"):
                self._steps.append((_function_of(op), inputs))
                places[op.outputs[0].ref()] = num_values
                num_values += 1
        (output,) = concrete.outputs
        self._output = places[output.ref()]
        self.set_weights(weights)

    def set_weights(self, weights: list[NDArray]) -> None:
        """Sets the weights for the next calls."""
        self._weights = weights

    def __call__(self, observation: Any) -> NDArray:
        """Returns `[E, A]` float32 for observations `[E, ...]`."""
        leaves = [observation] if isinstance(observation, np.ndarray) else observation
        values = [*self._weights, *keras.tree.flatten(leaves), *self._constants]
        for function, places in self._steps:
            values.append(function(*[values[place] for place in places]))
        return values[self._output]


def _function_of(op: tf.Operation) -> Callable:
    """Returns the NumPy function of an operation with one float32 output."""
    transposed = op.type == "MatMul" and (op.get_attr("transpose_a") or op.get_attr("transpose_b"))
    dtypes = [tensor.dtype for tensor in op.outputs]
    if op.type not in _OPERATIONS or transposed or dtypes != [tf.float32]:
        raise NotImplementedError(f"NumPy has no program for {op.type} of {dtypes}")
    return _OPERATIONS[op.type]
