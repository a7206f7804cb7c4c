"""`LiteRTContent`: a converted network and its weights, which can be pickled."""

from typing import Any

from numpy.typing import NDArray

from keras_dqn.acting import litert_program
from keras_dqn.acting.litert_program import LiteRTProgram
from keras_dqn.acting.observations import leaves_of


class LiteRTContent:
    """Makes a LiteRT program for each shape of observations, when the first one comes.

    A pickled content has no programs. Another process makes its own.

    Args:
        content: Bytes, the network, converted for any number of environments.
        weights: List of arrays.
    """

    def __init__(self, content: bytes, weights: list[NDArray]) -> None:
        self._content = content
        self._weights = weights
        self._programs: dict[tuple, LiteRTProgram] = {}

    def set_weights(self, weights: list[NDArray]) -> None:
        """Sets the weights for the next calls of all programs."""
        self._weights = weights
        for program in self._programs.values():
            program.set_weights(weights)

    def __call__(self, observation: Any) -> NDArray:
        """Returns `[E, A]` float32 for observations `[E, ...]` of the converted dtypes.

        Raises:
            ImportError: If LiteRT is not installed.
        """
        leaves = leaves_of(observation)
        shapes = tuple(leaf.shape for leaf in leaves)
        program = self._programs.get(shapes)
        if program is None:
            if litert_program.Interpreter is None:
                raise ImportError("This policy needs LiteRT: python -m pip install ai-edge-litert")
            program = LiteRTProgram(self._content, self._weights, leaves)
            self._programs[shapes] = program
        return program(leaves)

    def __getstate__(self) -> dict[str, Any]:
        """Returns all but the programs, which belong to one process."""
        return {**vars(self), "_programs": {}}
