"""Files that are replaced as a whole: a crash at any time leaves the old one or the new one."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MARK = ".partial"


@contextmanager
def replaced(path: str | os.PathLike, suffix: str | None = None) -> Iterator[str]:
    """Gives the path of a new file beside `path`, which takes its place when the context ends.

    The name of the new file is unique, so that several processes can write to one path, and ends
    like `path`. If writing fails it is removed; what a killed process has left is removed by the
    next call.

    Args:
        path: String or path. Its directory must be there.
        suffix: String, how the new file's name must end. Defaults to the suffix of `path`.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    ending = _MARK + (path.suffix if suffix is None else suffix)
    _remove_left_over(path, ending)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{ending}")
    try:
        yield os.fspath(unfinished)
        flush_to_disk(unfinished)
        os.replace(unfinished, os.fspath(path))
    except BaseException:
        with suppress(FileNotFoundError):
            unfinished.unlink()
        raise
    flush_to_disk(path.parent)


def reserve(path: str | os.PathLike, size: int) -> None:
    """Raises an `OSError` unless the disk takes a file of `size` bytes, which there is then.

    To be told now is better than in the middle of writing: a mapped file on a full disk ends the
    process, and so may HDF5.
    """
    with open(path, "ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


def flush_to_disk(path: str | os.PathLike) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    if os.name != "posix":  # elsewhere a directory cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_local(path: str | os.PathLike, suffix: str) -> bool:
    """Returns whether a path is of a local file of this suffix, and no URL."""
    text = os.fspath(path)
    return isinstance(text, str) and text.endswith(suffix) and "://" not in text


def is_new(path: str | os.PathLike) -> bool:
    """Returns whether there is nothing at a path yet."""
    return not os.path.exists(path)


def _remove_left_over(path: Path, ending: str) -> None:
    """Removes the new files of processes that have ended without a word."""
    for left in path.parent.glob(f".{_escaped(path.name)}.*{ending}"):
        process = left.name[len(path.name) + 2 :].split("-")[0]
        if process.isdigit() and not _runs(int(process)):
            with suppress(FileNotFoundError):
                left.unlink()


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _runs(process: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 is a signal like any other
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
