"""An agent's action values with the weights that its network has now, by one compiled call."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dqn.acting.agent import Agent


class ExactValues:
    """Computes action values for many observations or for one.

    Args:
        agent: A `DQN`.
        jit_compile: Bool, whether XLA compiles the program for one observation, which then costs
            half as much. Batches come in many sizes, and XLA would compile each one.
    """

    def __init__(self, agent: Agent, jit_compile: bool) -> None:
        def values(observation: Any) -> Any:
            return agent.q_values(agent.outputs_of(agent.network, observation))

        self._values = tf.function(values, autograph=False)
        self._values_of_one = tf.function(values, autograph=False, jit_compile=jit_compile)
        self._programs: dict[tuple, Any] = {}

    def __call__(self, observation: Any, rank: int | None) -> np.ndarray:
        """Returns `[E, A]` float32, or `[A]` for one observation.

        Args:
            observation: `[E, ...]`, or one observation without batch axis; arrays in the network's
                structure.
            rank: Int, the number of axes of one observation, of its first leaf.
        """
        if isinstance(observation, np.ndarray):
            one = observation.ndim == rank
            tensors = tf.constant(observation[None] if one else observation)
            kind: tuple = (one, observation.shape if one else observation.shape[1:])
            kind = (*kind, observation.dtype)
        else:
            leaves = keras.tree.flatten(observation)
            one = leaves[0].ndim == rank
            tensors = keras.tree.map_structure(
                lambda array: tf.constant(array[None] if one else array), observation
            )
            leaves = keras.tree.flatten(tensors)
            kind = (one, *((leaf.shape[1:], leaf.dtype) for leaf in leaves))
        program = self._programs.get(kind) or self._make_program(kind, tensors, one)
        values = program(tensors).numpy()
        return values[0] if one else values

    def _make_program(self, kind: tuple, tensors: Any, one: bool) -> Any:
        # Called as a concrete function, which spares TensorFlow 0.15 ms of looking it up.
        if one:
            program = self._values_of_one.get_concrete_function(tensors)
        else:
            spec = keras.tree.map_structure(_of_any_batch_size, tensors)
            program = self._values.get_concrete_function(spec)
        self._programs[kind] = program
        return program


def _of_any_batch_size(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)
