"""Keeps log lines of native libraries off the terminal while they work for this package."""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Information and warnings, in the forms of absl, of older TensorFlow releases and of LiteRT.
_LOG_LINE = re.compile(
    rb"[IW]\d{4} [\d:.]+ +\d+ |\d{4}-\d\d-\d\d .*: [IW] |INFO: |WARNING: All log messages before"
)
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def native_log_silenced() -> Iterator[None]:
    """Drops the information and warnings that native code logs inside this context.

    Native code writes to the standard error of the process directly. It bypasses `sys.stderr` and
    Python's warnings, and its log level can only be set before TensorFlow is imported. All other
    lines, such as the output of another thread, are written at the end of the context. If the work
    raises an error, nothing is written, because the error contains the text.
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
