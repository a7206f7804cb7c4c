"""What a replay buffer keeps: its state, in memory, in a file or in a directory."""

import os
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay import persistence
from keras_dqn.replay.rings import Rings

_Buffer = TypeVar("_Buffer", bound="PersistentBuffer")


class PersistentBuffer:
    """Gives the state of rings and of the generator that draws from them, and takes it back.

    A subclass makes both. `ReplayBuffer` describes the files.
    """

    _rings: Rings
    _rng: np.random.Generator

    # On disk

    def save(self, path: str | os.PathLike) -> None:
        """Writes one HDF5 file: contents, priorities, counters and the generator's state.

        A crash at any time leaves the old file or the new one.

        Args:
            path: String or path, such as `"replay.h5"`.
        """
        persistence.save(self, path)

    @classmethod
    def load(
        cls: type[_Buffer], path: str | os.PathLike, *, env: Any = None, **kwargs: Any
    ) -> _Buffer:
        """Loads a buffer that was saved to a file, or flushed to a `"memmap"` directory.

        Args:
            path: String or path of the file, or of the directory, which is used in place.
            env: The environment or vector environment that it must fit. Defaults to `None`.
            **kwargs: Arguments of the constructor that the file does not hold: a `beta` that is a
                function.

        Raises:
            FileNotFoundError: If nothing exists at `path`.
            ValueError: If the file is truncated, damaged, foreign or of another class or version,
                or does not fit `env`.
        """
        return persistence.load(cls, path, env, kwargs)

    def flush(self) -> None:
        """Writes the parts that are not in the files of a `"memmap"` directory yet, for `load`.

        Later transitions are in the files at once. Counters, the generator's state and priorities
        are those of the last `flush`.

        Raises:
            ValueError: If `storage` is not `"memmap"`.
        """
        persistence.flush(self)

    # In memory

    def counters(self) -> dict[str, Any]:
        """Returns the part of the state that JSON can hold."""
        return {
            "heads": list(self._rings.heads_list),
            "runs": list(self._rings.runs_list),
            "generator": self._rng.bit_generator.state,
        }

    def arrays(self) -> dict[str, NDArray]:
        """Returns the arrays of the state, not copies, with one entry per slot."""
        return self._rings.arrays()

    def restored(self, counters: dict[str, Any]) -> None:
        """Takes counters and computes the rest of the state, after `arrays` were changed."""
        self._rings.restore(counters["heads"], counters["runs"])
        self._rng.bit_generator.state = counters["generator"]

    def row_arrays(self) -> dict[str, NDArray]:
        """Returns the arrays of the rows, not copies, with one entry per slot.

        Each ring is written in order. Only the flags of the row before a head can change later.
        """
        return self._rings.arrays()

    def get_state(self, rows: bool = True) -> dict[str, Any]:
        """Returns copies of contents, priorities, counters and the generator's state.

        The draws that follow are the same with and without this call.

        Args:
            rows: Bool, whether the state has the key `"rows"`, a copy of `row_arrays()`. Defaults
                to `True`.
        """
        return persistence.get_state(self._rings, self._rng, rows)

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes such a state; the draws that follow are those of the buffer that gave it.

        Args:
            state: Dict that `get_state` returned. Without `"rows"`, the caller must have filled
                `row_arrays()` before.

        Raises:
            ValueError: If it is of another class, size or space, or damaged. Then nothing changes.
        """
        persistence.check_state(self, state)
        for name, array in state.get("rows", {}).items():
            self.row_arrays()[name][:] = array
        self._rings.restore(state["heads"], state["runs"])
        self._rng.bit_generator.state = state["generator"]
        persistence.write_state(self, state)
