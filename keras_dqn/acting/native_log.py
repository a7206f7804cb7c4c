"""Keeps the log of native libraries off the terminal while they do a piece of our work."""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Information and warnings as absl writes them, as older releases of TensorFlow do, and LiteRT's.
_LOG_LINE = re.compile(
    rb"[IW]\d{4} [\d:.]+ +\d+ |\d{4}-\d\d-\d\d .*: [IW] |INFO: |WARNING: All log messages before"
)
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def native_log_silenced() -> Iterator[None]:
    """Drops the information and warnings that native code logs in the meantime.

    Native code writes to the process' standard error itself, past `sys.stderr` and Python's
    warnings, and its level can only be set before TensorFlow is imported. All other lines that
    arrive there, such as another thread's output, are written afterwards. If the work raises an
    error, the error has the text: then nothing is written.
    """
    with _ONE_AT_A_TIME:
        try:
            terminal = os.dup(2)
        except OSError:  # a process without standard error
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            lines: Iterable[bytes] = ()
            try:
                yield
                lines = file
            finally:
                if sys.stderr is not None:
                    sys.stderr.flush()
                os.dup2(terminal, 2)
                os.close(terminal)
                file.seek(0)
                for line in lines:
                    if not _LOG_LINE.match(line):
                        os.write(2, line)
