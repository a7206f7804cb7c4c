"""Computes a network's action values in NumPy, by the steps that `numpy_tracing` found.

A policy uses it for stacks of Dense layers if the extra `fast` is not installed. NumPy needs about
10 microseconds, a compiled call 500.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.acting.observations import leaves_of

_ZERO = np.float32(0)


def _cast(x: NDArray) -> NDArray:
    return x.astype(np.float32)


def _relu(x: NDArray) -> NDArray:
    return np.maximum(x, _ZERO)


# By the names of TensorFlow's operations. Functions with names can be pickled, lambdas cannot.
OPERATIONS: dict[str, Callable] = {
    "AddV2": np.add,
    "BiasAdd": np.add,
    "Cast": _cast,
    "MatMul": np.matmul,
    "Maximum": np.maximum,
    "Mul": np.multiply,
    "Relu": _relu,
    "Sub": np.subtract,
    "Tanh": np.tanh,
}


class NumPyProgram:
    """Runs one NumPy call for each operation of a traced function; serves any `E`.

    It can be pickled.

    Args:
        steps: Sequence of `(operation, places)`: a name in `OPERATIONS` and the places of its
            inputs. Places count the weights, the leaves of the observation, the constants, and the
            results of the steps, in this order.
        constants: List of arrays.
        output: Int, the place of the action values.
        weights: List of arrays, with the shapes and dtypes of all later ones.
    """

    def __init__(
        self,
        steps: Sequence[tuple[str, tuple[int, ...]]],
        constants: list[NDArray],
        output: int,
        weights: list[NDArray],
    ) -> None:
        self._steps = [(OPERATIONS[name], places) for name, places in steps]
        self._constants = constants
        self._output = output
        self.set_weights(weights)

    def set_weights(self, weights: list[NDArray]) -> None:
        """Sets the weights for the next calls."""
        self._weights = weights

    def __call__(self, observation: Any) -> NDArray:
        """Returns `[E, A]` float32 for observations `[E, ...]`."""
        values = [*self._weights, *leaves_of(observation), *self._constants]
        for function, places in self._steps:
            values.append(function(*[values[place] for place in places]))
        return values[self._output]
