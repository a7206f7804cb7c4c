"""A directory of numbered checkpoints; one process at a time uses it."""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keras_dqn.hdf5 import DamagedFileError
from keras_dqn.saving import state_file

try:
    import fcntl
except ImportError:  # not a POSIX system: the directory is not locked
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"checkpoint-([0-9]{8})\.h5")
_IN_USE: set[Path] = set()  # a lock does not exclude this process itself


class CheckpointDirectory:
    """Writes checkpoints and reads the newest one that is whole.

    A checkpoint is one file, and other files that it refers to. They are written first. Then the
    checkpoint's own file appears under its final name. So a kill at any moment leaves the earlier
    checkpoints whole. Files that no checkpoint refers to are removed after the next one.

    Args:
        path: String or path; created when the first checkpoint is written.
        max_to_keep: Int, newest checkpoints to keep.
    """

    def __init__(self, path: str | os.PathLike, max_to_keep: int) -> None:
        self.path = Path(path).absolute()  # the working directory may change
        self.max_to_keep = max_to_keep
        self._files: dict[int, set[str]] = {}  # those that each checkpoint refers to
        self._last_number = 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes and other `fit`s out; the end of a process ends its lock.

        Raises:
            RuntimeError: If the directory is in use.
            OSError: If it cannot be written.
        """
        path = self.path.resolve()
        in_use = RuntimeError(
            "`directory` is in use by another `fit`: two runs would overwrite each other's "
            f"checkpoints. Received: directory={str(self.path)!r}"
        )
        if path in _IN_USE:
            raise in_use
        with self._lock_file() as file:
            if fcntl is not None:
                try:  # Child processes do not inherit this kind of lock.
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except (BlockingIOError, PermissionError) as error:
                    raise in_use from error
            _IN_USE.add(path)
            self._files.clear()  # the files may have changed since the last `fit`
            try:
                yield
            finally:
                _IN_USE.remove(path)

    def _lock_file(self) -> Any:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return open(self.path / "lock", "a")
        except OSError as error:
            raise type(error)(
                "`directory` must be a directory that can be written. Received: directory="
                f"{str(self.path)!r} ({error})"
            ) from error

    @property
    def is_empty(self) -> bool:
        """Whether the directory holds no checkpoint."""
        return not self._numbers()

    def restore_newest(self, restore: Callable[[dict[str, Any]], None]) -> bool:
        """Restores the newest checkpoint that is whole; returns False if there is none at all.

        A damaged one is renamed, with a warning, and the one before is tried.

        Args:
            restore: Function of a state; it raises a `DamagedFileError` if another file of the
                checkpoint is damaged.

        Raises:
            ValueError: If all checkpoints are damaged, or one is of another version or run.
        """
        numbers = self._numbers()
        damaged: list[tuple[int, DamagedFileError]] = []
        for number in reversed(numbers):
            try:
                state = state_file.read_state(str(self._path_of(number)))
                files = _files_in(state)
                restore(state)
            except DamagedFileError as error:
                damaged.append((number, error))
                continue
            self._files[number] = files
            for newer, reason in damaged:
                self._put_aside(newer, reason)
            return True
        if damaged:
            raise ValueError(
                "`directory` must hold a checkpoint that is whole. Received: directory="
                f"{str(self.path)!r}, where all are damaged. {damaged[0][1]}"
            )
        return False

    def _put_aside(self, number: int, error: DamagedFileError) -> None:
        """Renames a damaged checkpoint, so that it is neither used nor removed."""
        path = self._path_of(number)
        aside = path.with_name(f"damaged-{path.name}")
        path.rename(aside)
        warnings.warn(
            f"The newest checkpoint is damaged, so the one before is used. It was renamed to "
            f"{aside.name}. {error}",
            stacklevel=2,
        )

    def write(self, make_state: Callable[[int], dict[str, Any]]) -> None:
        """Writes a checkpoint, and removes those that are not kept.

        Args:
            make_state: Function of the number of the new checkpoint. It writes the further files
                of the checkpoint and returns the state; `"files"` in it are their names.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        # A new number even after a failure: later checkpoints may refer to the files written then.
        number = self._last_number = max([*self._numbers(), self._last_number]) + 1
        state = make_state(number)
        state_file.write_state(str(self._path_of(number)), state)
        self._files[number] = set(state["files"])
        self._remove_old()

    def _remove_old(self) -> None:
        numbers = self._numbers()
        for number in numbers[: -self.max_to_keep]:
            self._path_of(number).unlink()
        kept = numbers[-self.max_to_keep :]
        try:
            used: set[str] = set().union(*(self._files_of(number) for number in kept))
        except ValueError:  # an older one is damaged: nobody knows which files it needs
            return
        for path in self.path.glob("rows-*.h5"):
            if path.name not in used:
                with suppress(FileNotFoundError):
                    path.unlink()

    def _files_of(self, number: int) -> set[str]:
        if number not in self._files:
            self._files[number] = _files_in(state_file.read_header(str(self._path_of(number))))
        return self._files[number]

    def _numbers(self) -> list[int]:
        matches = (_NAME.fullmatch(path.name) for path in self.path.glob("checkpoint-*.h5"))
        return sorted(int(match[1]) for match in matches if match)

    def _path_of(self, number: int) -> Path:
        return self.path / f"checkpoint-{number:08d}.h5"


def _files_in(state: Any) -> set[str]:
    """Returns the names of the files that a checkpoint refers to."""
    files = state.get("files") if isinstance(state, dict) else None
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise DamagedFileError(f"A checkpoint does not name its files. Received: files={files}")
    return set(files)
