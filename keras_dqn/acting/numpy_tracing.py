"""Traces a function in TensorFlow, and makes a NumPy program of it if its operations are simple."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from keras_dqn.acting.numpy_program import OPERATIONS, NumPyProgram


def numpy_program_of(values_of: Callable, weights: list[NDArray], observation: Any) -> NumPyProgram:
    """Returns the program of a function.

    Args:
        values_of: Function of `(weights, observation)`, tensors to `[E, A]`.
        weights: List of arrays, with the shapes and dtypes of all later ones.
        observation: `[E, ...]` (or a dict of arrays), an example; only `E` may differ later.

    Raises:
        NotImplementedError: If the function needs operations or dtypes that `NumPyProgram` lacks.
    """
    leaves = keras.tree.map_structure(
        lambda leaf: tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype), observation
    )
    specs = [tf.TensorSpec(weight.shape, weight.dtype) for weight in weights]
    concrete = tf.function(values_of, autograph=False).get_concrete_function(specs, leaves)
    if len(concrete.inputs) != len(weights) + len(keras.tree.flatten(observation)):
        raise NotImplementedError("NumPy has no program for a function that captures tensors")
    places = {tensor.ref(): i for i, tensor in enumerate(concrete.inputs)}
    operations = [op for op in concrete.graph.get_operations() if op.type != "Placeholder"]
    constants = [op for op in operations if op.type == "Const"]
    for op in constants:
        places[op.outputs[0].ref()] = len(places)
    steps = []
    num_values = len(places)
    for op in operations:
        inputs = tuple(places[tensor.ref()] for tensor in op.inputs)
        if op.type == "Identity":
            places[op.outputs[0].ref()] = inputs[0]
        elif op.type not in ("Const", "NoOp"):
            steps.append((_name_of(op), inputs))
            places[op.outputs[0].ref()] = num_values
            num_values += 1
    (output,) = concrete.outputs
    arrays = [tf.make_ndarray(op.get_attr("value")) for op in constants]
    return NumPyProgram(steps, arrays, places[output.ref()], weights)


def _name_of(op: tf.Operation) -> str:
    """Returns the name of an operation with one float32 output that `NumPyProgram` has."""
    transposed = op.type == "MatMul" and (op.get_attr("transpose_a") or op.get_attr("transpose_b"))
    dtypes = [tensor.dtype for tensor in op.outputs]
    if op.type not in OPERATIONS or transposed or dtypes != [tf.float32]:
        raise NotImplementedError(f"NumPy has no program for {op.type} of {dtypes}")
    return op.type
