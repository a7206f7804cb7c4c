"""Replaces files as a whole: after a crash at any time, the old file or the new one is there."""

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
    """Gives the path of a new file beside `path`; it replaces `path` when the context ends.

    The name of the new file is unique, so several processes can write to one path. If writing
    fails, the new file is removed. If a process is killed, the next call removes its file.

    Args:
        path: String or path. Its directory must exist.
        suffix: String, the end of the new file's name. Defaults to the suffix of `path`.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
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
    """Raises an `OSError` unless the disk has room for a file of `size` bytes; then it exists.

    An error now is better than one in the middle of writing: on a full disk a mapped file ends the
    process, and HDF5 may end it too.
    """
    with open(path, "ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


def flush_to_disk(path: str | os.PathLike) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    if os.name != "posix":  # other systems cannot open a directory
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_local(path: str | os.PathLike, suffix: str) -> bool:
    """Returns whether a path is a local file with this suffix, not a URL."""
    text = os.fspath(path)
    return isinstance(text, str) and text.endswith(suffix) and "://" not in text


def is_new(path: str | os.PathLike) -> bool:
    """Returns whether nothing exists at a path yet."""
    return not os.path.exists(path)


def _remove_left_over(path: Path, ending: str) -> None:
    """Removes unfinished files of processes that no longer run."""
    for left in path.parent.glob(f".{_escaped(path.name)}.*{ending}"):
        process = left.name[len(path.name) + 2 :].split("-")[0]
        if process.isdigit() and not _runs(int(process)):
            with suppress(FileNotFoundError):
                left.unlink()


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _runs(process: int) -> bool:
    if os.name != "posix":  # on other systems signal 0 is an ordinary signal
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
