"""`Policy`: a host-side snapshot of a network's action values, NumPy in and NumPy out."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_dqn.acting.litert_program import LiteRTProgram, litert_applies


class Policy:
    """Acts with the weights that a network had at the last `refresh`.

    Where the extra `fast` is installed and the network is of a kind that gains by it (see
    `litert_program.py` for the rule), the values come from a LiteRT program, a few microseconds a
    call; else from one compiled call, a few hundred. `backend` says which: `"litert"` or
    `"compiled"`. The values equal the network's to 1e-5.

    Args:
        model: A `DQN`, or any built Keras model that maps observations to `[B, A]` action values.
    """

    def __init__(self, model: keras.Model) -> None:
        self._network = getattr(model, "network", model)
        self._q_values: Callable = getattr(model, "q_values", lambda outputs: outputs)
        self._programs: dict[tuple, Any] = {}
        self._compiled: Any = None
        self.backend = "litert" if litert_applies(self._network) else "compiled"
        self.refresh()

    def __call__(self, observation: Any) -> NDArray[np.int64]:
        """Returns the greedy actions, `[E]` int64, 0-based, for observations `[E, ...]`."""
        return self.action_values(observation).argmax(axis=-1)

    def action_values(self, observation: Any) -> NDArray[np.float32]:
        """Returns `[E, A]` float32 for observations `[E, ...]` (or a dict of such)."""
        if isinstance(observation, np.ndarray):
            key: tuple = (observation.shape, observation.dtype.char)
        else:
            observation = keras.tree.map_structure(np.asarray, observation)
            leaves = keras.tree.flatten(observation)
            key = tuple((leaf.shape, leaf.dtype.char) for leaf in leaves)
        program = self._programs.get(key) or self._make_program(key, observation)
        return program(observation)

    def refresh(self) -> None:
        """Reads the network's weights again."""
        self._weights = [variable.numpy() for variable in self._network.variables]
        for program in set(self._programs.values()):  # one compiled program serves all shapes
            program.set_weights(self._weights)

    def _make_program(self, key: tuple, observation: Any) -> Any:
        if not self._network.built:
            self._build(observation)
        if self.backend == "litert":
            try:
                self._programs[key] = LiteRTProgram(self._values_of, self._weights, observation)
            except Exception:
                # The converter does not know an operation; its errors have no common class.
                self.backend = "compiled"
        if self.backend == "compiled":
            self._compiled = self._compiled or CompiledProgram(self._values_of)
            self._compiled.set_weights(self._weights)
            self._programs[key] = self._compiled
        return self._programs[key]

    def _build(self, observation: Any) -> None:
        self._network(observation)
        self.refresh()

    def _values_of(self, weights: list, observation: Any) -> Any:
        network = self._network
        value = {id(v): w for v, w in zip(network.variables, weights, strict=True)}
        outputs, _ = network.stateless_call(
            [value[id(v)] for v in network.trainable_variables],
            [value[id(v)] for v in network.non_trainable_variables],
            observation,
            training=False,
        )
        return self._q_values(outputs)


class CompiledProgram:
    """Action values through one compiled TensorFlow call."""

    def __init__(self, values_of: Callable) -> None:
        self._function = tf.function(values_of, autograph=False, reduce_retracing=True)
        self._weights: list = []

    def set_weights(self, weights: list[NDArray]) -> None:
        """Takes the weights of the calls to come."""
        self._weights = [tf.constant(weight) for weight in weights]

    def __call__(self, observation: Any) -> NDArray[np.float32]:
        """Returns `[E, A]` float32 for observations `[E, ...]`."""
        tensors = keras.tree.map_structure(tf.convert_to_tensor, observation)
        return self._function(self._weights, tensors).numpy()


def policy_of(model: keras.Model) -> Policy:
    """Returns `model.policy()` where the model has one, else a policy over its outputs `[B, A]`."""
    return model.policy() if hasattr(model, "policy") else Policy(model)
