"""`Programs`: chooses the fastest program for a function of weights and observations."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
from numpy.typing import NDArray

from keras_dqn.acting.compiled_program import CompiledProgram
from keras_dqn.acting.host_policy import HostProgram
from keras_dqn.acting.litert_content import LiteRTContent
from keras_dqn.acting.litert_converter import (
    LiteRTConverter,
    why_not_convertible,
    why_not_litert,
)
from keras_dqn.acting.numpy_program import NumPyProgram
from keras_dqn.acting.numpy_tracing import numpy_program_of


class Programs:
    """Makes and keeps one program for each shape and dtype of observations.

    Args:
        values_of: Function of `(weights, observation)`, tensors to `[E, A]`.
        network: The Keras model or layer that `values_of` uses.

    Attributes:
        reason: String, why it does not use LiteRT; empty if it does.
    """

    def __init__(self, values_of: Callable, network: keras.layers.Layer) -> None:
        self._values_of = values_of
        self._litert = LiteRTConverter(values_of)
        self._programs: dict[tuple, Any] = {}
        self._others: dict[tuple, NumPyProgram | CompiledProgram] = {}  # serve any batch size
        self.reason = why_not_litert(network)

    @property
    def backend(self) -> str:
        """The kind of program that computes the values."""
        if not self.reason:
            return "litert"
        in_numpy = any(isinstance(program, NumPyProgram) for program in self._others.values())
        return "numpy" if in_numpy else "compiled"

    def get(self, key: tuple) -> Any:
        """Returns the program that `make` made for a key, or None."""
        return self._programs.get(key)

    def make(self, key: tuple, weights: list[NDArray], observation: Any) -> Any:
        """Makes the program for observations of this shape and dtype, and keeps it for a key."""
        if not self.reason:
            try:
                self._programs[key] = self._litert.program(weights, observation)
            except Exception as error:  # the converter's errors have no common class
                self._fall_back(error)
        if self.reason:
            kind = tuple((leaf.shape[1:], leaf.dtype) for leaf in keras.tree.flatten(observation))
            if kind not in self._others:
                self._others[kind] = self._numpy_or_compiled(weights, observation)
            self._programs[key] = self._others[kind]
        return self._programs[key]

    def set_weights(self, weights: list[NDArray]) -> None:
        """Sets the weights for the next calls of all programs."""
        for program in set(self._programs.values()):
            program.set_weights(weights)

    def _numpy_or_compiled(
        self, weights: list[NDArray], observation: Any
    ) -> NumPyProgram | CompiledProgram:
        try:
            return numpy_program_of(self._values_of, weights, observation)
        except NotImplementedError:
            program = CompiledProgram(self._values_of)
            program.set_weights(weights)
            return program

    def _fall_back(self, error: Exception) -> None:
        message = _first_line_of(error)
        self.reason = f"LiteRT cannot convert it: {message}"
        warnings.warn(
            "A policy acts without LiteRT, so most networks need about 0.4 ms a call. The reason: "
            f"LiteRT cannot convert the network. Received: {message}",
            stacklevel=5,
        )


def host_program_of(
    values_of: Callable, network: keras.layers.Layer, weights: list[NDArray], observation: Any
) -> HostProgram:
    """Returns a program that needs no Keras: by LiteRT, also for convolutions, or else by NumPy.

    Args:
        values_of: Function of `(weights, observation)`, tensors to `[E, A]`.
        network: The Keras model or layer that `values_of` uses.
        weights: List of arrays, with the shapes and dtypes of all later ones.
        observation: `[E, ...]` (or a dict of arrays), an example; only `E` may differ later.

    Raises:
        NotImplementedError: If neither of them can compute the function for any `E`.
    """
    reason = why_not_convertible(network)
    if not reason:
        try:
            content = LiteRTConverter(values_of).convert(weights, observation, None)
            program = LiteRTContent(content, weights)
            program(observation)
            return program
        except Exception as error:  # the converter's errors have no common class
            reason = f"LiteRT cannot convert it for any `E`: {_first_line_of(error)}"
    try:
        return numpy_program_of(values_of, weights, observation)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"The network cannot act without Keras: {reason}; {error}. Received: network={network}"
        ) from error


def _first_line_of(error: Exception) -> str:
    (message, *_) = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {message}"
