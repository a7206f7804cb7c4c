"""Saves the rows of a replay buffer in pieces, so that a checkpoint writes only the new rows.

Rows before the head of a ring do not change any more, except for the flags of the last one. So a
checkpoint writes the rows since the last checkpoint to a new file, a segment. It refers to the
segments of earlier checkpoints that hold its other rows. No file is ever changed.
"""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn import hdf5

_KIND = hdf5.Kind("part of a replay buffer", 1, "TrainingCheckpoint")
_SEGMENTS = 64  # files of a full buffer; more of them waste less space on rows that are overwritten
_FEWEST_BYTES = 1 << 17  # in a segment; HDF5 needs 4 KiB beside it
_NAME = re.compile(r"rows-[0-9]+-[0-9]+-[0-9]+\.h5")

Segment = dict[str, Any]  # "file": name; "first" and "stop": rows of each environment, lists [E]


class RingRows:
    """The rows of a buffer's rings: which are stored, and where in its arrays.

    Args:
        arrays: Dict of the arrays of rows, with one entry per slot.
        heads: List of ints, the next row of each environment, `[E]`.
    """

    def __init__(self, arrays: dict[str, NDArray], heads: list[int]) -> None:
        self.arrays = arrays
        self.heads = np.array(heads, np.int64)
        self.ring_size = len(arrays["flags"]) // len(heads)
        self.oldest = np.maximum(self.heads - self.ring_size + 1, 0)

    def slots(self, first: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the slots of rows `first` `[E]` to `stop` `[E]`, environment by environment."""
        return np.concatenate(
            [
                env * self.ring_size + np.arange(begin, end) % self.ring_size
                for env, (begin, end) in enumerate(zip(first, stop, strict=True))
            ]
        )


def save_rows(
    directory: Path, prefix: str, rows: RingRows, segments: list[Segment]
) -> list[Segment]:
    """Writes the rows that no segment holds yet; returns the segments of all stored rows.

    Args:
        directory: Path of the checkpoints.
        prefix: String, the beginning of the names of new files: `"rows-0-12"`.
        rows: The rows of the buffer.
        segments: List of the segments of the last checkpoint; empty for the first one.
    """
    kept = [part for part in segments if (np.array(part["stop"]) > rows.oldest).any()]
    first = rows.oldest
    if kept:
        last = kept[-1]
        # The head's slot has a next observation, and the row before it may have been truncated.
        first = np.maximum(np.array(last["stop"]) - 2, rows.oldest)
        if _count(last) < _segment_rows(rows):  # merge it with the new rows
            first = np.maximum(np.minimum(np.array(last["first"]), first), rows.oldest)
            kept = kept[:-1]
    stop = rows.heads + 1
    total = int((stop - first).sum())
    ends = [*range(0, total, _segment_rows(rows)), total]  # full segments and a rest
    bounds = [first + (stop - first) * end // total for end in ends]
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        slots = rows.slots(begin, end)
        file = f"{prefix}-{number}.h5"
        part = {"file": file, "first": begin.tolist(), "stop": end.tolist()}
        arrays = {name: array[slots] for name, array in rows.arrays.items()}
        hdf5.write_file(str(directory / file), _KIND, part, arrays)
        kept = [*kept, part]
    return kept


def load_rows(directory: Path, rows: RingRows, segments: Any) -> None:
    """Fills the arrays of rows from segments.

    Raises:
        DamagedFileError: If a file is missing or damaged, or the segments lack a row.
    """
    _check(segments, rows)
    for segment in segments:
        path = str(directory / segment["file"])
        try:
            header = hdf5.read_header(path, _KIND)
        except FileNotFoundError as error:
            raise hdf5.DamagedFileError(str(error)) from error
        if header != segment:
            raise hdf5.DamagedFileError(
                f"`path` must hold the rows {segment}. Received: {path=} with {header}"
            )
        stop = np.array(segment["stop"])
        first = np.array(segment["first"])
        needed = np.concatenate(
            [
                np.arange(begin, end) >= oldest
                for begin, end, oldest in zip(first, stop, rows.oldest, strict=True)
            ]
        )
        slots = rows.slots(first, stop)
        arrays = {name: np.empty_like(a[: len(slots)]) for name, a in rows.arrays.items()}
        hdf5.read_arrays(path, _KIND, arrays, [(0, len(slots))])
        for name, array in rows.arrays.items():
            array[slots[needed]] = arrays[name][needed]


def files_of(segments: list[Segment]) -> set[str]:
    """Returns the names of the files of segments."""
    return {segment["file"] for segment in segments}


def _count(segment: Segment) -> int:
    return sum(segment["stop"]) - sum(segment["first"])


def _segment_rows(rows: RingRows) -> int:
    row_bytes = sum(array[:1].nbytes for array in rows.arrays.values())
    return max(_FEWEST_BYTES // row_bytes, len(rows.arrays["flags"]) // _SEGMENTS, 1)


def _check(segments: Any, rows: RingRows) -> None:
    """Raises a `DamagedFileError` unless segments, in their order, hold all stored rows."""
    covered, num_envs = rows.oldest, len(rows.heads)
    try:
        for segment in segments:
            first, stop = np.array(segment["first"]), np.array(segment["stop"])
            whole = first.shape == stop.shape == (num_envs,) and _NAME.fullmatch(segment["file"])
            limits = (first >= 0) & (first <= covered) & (first <= stop)
            if not whole or not (limits & (stop - first <= rows.ring_size)).all():
                raise ValueError(f"{segment} does not follow the segment before")
            covered = np.maximum(covered, stop)
        if (covered != rows.heads + 1).any():
            raise ValueError(f"the rows end at {covered.tolist()}, not {rows.heads.tolist()}")
    except (KeyError, TypeError, ValueError) as error:
        raise hdf5.DamagedFileError(
            f"A checkpoint lacks rows of a replay buffer: {error}"
        ) from error
