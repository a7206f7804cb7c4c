"""Allocates a replay buffer's arrays: in memory, or in a directory's files, mapped into memory."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.files import replaced, reserve
from keras_dqn.replay.unfinished import AN_ADD

_HEADER = "buffer.json"


class Memory:
    """Arrays in memory, all zeros at first."""

    has_header = True  # nothing to write
    unfinished = 0

    def allocate(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
        """Returns an array of zeros."""
        return np.zeros(shape, dtype)

    def begin(self, num_rows: int = AN_ADD) -> None:
        """Does nothing: memory does not outlive an interrupted write."""

    def written(self, heads: list[int], runs: list[bool]) -> None:
        """Does nothing: in memory the counts need no second copy."""


class MemmapDirectory:
    """Arrays in `.npy` files of a directory, for buffers larger than memory.

    The number in `adding.npy` is 1 while an `add` writes, and the number of a ring's rows while
    a part of a block is written. If a process is killed then, the number stays, and `load` removes
    the rows that can be damaged.

    Args:
        directory: String or path; created if it does not exist.
        reopen: Bool, whether the arrays exist already.

    Raises:
        ValueError: If the directory holds a buffer or arrays and `reopen` is False, or if it holds
            no buffer and `reopen` is True.
    """

    def __init__(self, directory: str | os.PathLike, reopen: bool = False) -> None:
        self.path = Path(directory)
        self._reopen = reopen
        self._counts: Any = None
        self._numbers: memoryview | None = None  # views of arrays
        self._adding: memoryview | None = None
        self.has_header = reopen
        if (self.path / _HEADER).exists() != reopen:
            state = "holds no replay buffer" if reopen else "holds a replay buffer already"
            raise ValueError(
                f"`directory` {state}; `ReplayBuffer.load(directory)` opens one that was flushed. "
                f"Received: directory={str(directory)!r}"
            )
        if not reopen and any(self.path.glob("*.npy")):
            raise ValueError(
                "`directory` holds arrays already, which would be overwritten; "
                "`ReplayBuffer.load(directory)` opens a replay buffer. Received: "
                f"directory={str(directory)!r}"
            )
        self.path.mkdir(parents=True, exist_ok=True)

    def __reduce__(self) -> Any:
        raise TypeError(
            "A replay buffer of `storage='memmap'` cannot be copied: both would write to the same "
            f"files. Received: directory={str(self.path)!r}"
        )

    def allocate(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
        """Returns the array of a name: zeros, or its stored contents if `reopen` is True."""
        return (self._opened if self._reopen else self._create)(name, shape, dtype)

    def _create(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
        file = self.path / f"{name}.npy"
        array = np.lib.format.open_memmap(file, "w+", dtype, shape)
        try:
            reserve(file, file.stat().st_size)
        except OSError:
            file.unlink()  # writing to a sparse file on a full disk ends the process
            raise
        return array

    def _opened(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray:
        file = self.path / f"{name}.npy"
        try:
            array = np.load(file, mmap_mode="r")  # "r+" would fill a truncated file with zeros
        except Exception as error:  # NumPy raises a dozen kinds of errors for a damaged header
            received = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        else:
            if (array.shape, array.dtype) == (shape, np.dtype(dtype)):
                return np.load(file, mmap_mode="r+")
            received = f"{array.dtype} {array.shape}"
        raise ValueError(
            f"`directory` holds no replay buffer that can be opened: {file.name} must be "
            f"{np.dtype(dtype)} {shape}. Received: {received}, directory={str(self.path)!r}"
        )

    @property
    def unfinished(self) -> int:
        """The number given to a `begin` whose write has not ended, or 0."""
        return 0 if self._adding is None else int(self._adding[0])

    def begin(self, num_rows: int = AN_ADD) -> None:
        """Notes that up to `num_rows` rows of each ring are written, at most 255."""
        if self._adding is None:
            self._adding = _view(self._create("adding", (1,), np.uint8))
        self._adding[0] = num_rows

    def written(self, heads: list[int], runs: list[bool]) -> None:
        """Writes the counts after each write, so that the files agree with each other."""
        if self._numbers is None:
            self._counts = self.allocate("counts", (2, len(heads)), np.int64)
            self._numbers = _view(self._counts)
        numbers = self._numbers
        for i, number in enumerate([*heads, *runs]):
            numbers[i] = number
        if self._adding is not None:
            self._adding[0] = 0

    def write(self, header: dict[str, Any], arrays: dict[str, NDArray]) -> None:
        """Writes all changes to the disk, the header last."""
        self.written(header["counters"]["heads"], header["counters"]["runs"])
        for name, array in [*arrays.items(), ("counts", self._counts)]:
            if isinstance(array, np.memmap):
                array.flush()
            else:
                self._write_anew(f"{name}.npy", partial(_save_array, array))
        self._write_anew(_HEADER, partial(_save_json, header))
        self.has_header = True

    def read_header(self) -> dict[str, Any]:
        """Returns the header of the last `write`."""
        try:
            return json.loads((self.path / _HEADER).read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`path` holds no replay buffer that can be loaded: its {_HEADER} cannot be read "
                f"({error}). Received: path={str(self.path)!r}"
            ) from error

    def read(self, arrays: dict[str, NDArray], counters: dict[str, Any]) -> None:
        """Fills arrays that are in memory, and the counts that were written after the header."""
        for name, array in arrays.items():
            if not isinstance(array, np.memmap):
                array[:] = self._opened(name, array.shape, array.dtype)
        self._counts = self.allocate("counts", (2, len(counters["heads"])), np.int64)
        self._numbers = _view(self._counts)
        counters["heads"] = self._counts[0].tolist()
        if (self.path / "adding.npy").exists():  # version 0.1.0 made none
            self._adding = _view(self._opened("adding", (1,), np.uint8))
        counters["runs"] = [bool(run) if run in (0, 1) else int(run) for run in self._counts[1]]

    def _write_anew(self, name: str, write: Callable[[Any], Any]) -> None:
        """Replaces a file atomically."""
        with replaced(self.path / name) as unfinished, open(unfinished, "wb") as file:
            write(file)


def _view(array: Any) -> memoryview:
    """Returns a view that stores single numbers, in less time than NumPy."""
    return memoryview(array.reshape(-1))


def _save_array(array: NDArray, file: Any) -> None:
    np.save(file, array)


def _save_json(header: dict[str, Any], file: Any) -> None:
    file.write(json.dumps(header, default=np.generic.item).encode())


def allocator(storage: str, directory: Any) -> Memory | MemmapDirectory:
    """Returns the object that allocates the arrays of a buffer.

    Raises:
        ValueError: If `storage` is not `"memory"`, or `"memmap"` with a `directory`.
    """
    if storage == "memory" and directory is None:
        return Memory()
    if storage == "memmap" and directory is not None:
        is_open = isinstance(directory, MemmapDirectory)
        return directory if is_open else MemmapDirectory(directory)
    raise ValueError(
        "`storage` must be 'memory', or 'memmap' with a `directory`. Received: "
        f"{storage=}, {directory=}"
    )
