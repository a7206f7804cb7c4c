"""Writes and reads HDF5 files that hold arrays and a header in JSON.

A file is written under another name, flushed to the disk and then renamed. So a crash at any time
leaves the old file or the new one. All chunks have checksums.
"""

import json
import os
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from keras_dqn.files import replaced, reserve

_CHUNK_BYTES = 1 << 20

Ranges = list[tuple[int, int]]


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: String, what a file holds.
        version: Int, the version of the format that this package writes and reads.
        writer: String, the method that writes it.
    """

    name: str
    version: int
    writer: str

    @property
    def mark(self) -> np.bytes_:
        """The attribute that tells this kind from others."""
        return np.bytes_(f"keras_dqn {self.name}")  # fixed length: other strings have no checksum


REPLAY_BUFFER = Kind("replay buffer", 1, "ReplayBuffer.save")


class DamagedFileError(ValueError):
    """A file is truncated, damaged, or of another kind."""


def write_file(
    path: str, kind: Kind, header: dict, arrays: dict[str, NDArray], used: Ranges | None = None
) -> None:
    """Writes a new file; if writing fails, the old one stays.

    Args:
        path: String, the path of the file.
        kind: `Kind` of the file.
        header: Dict that JSON can hold.
        arrays: Arrays of at least one axis and one entry; of equal length if `used` is given.
        used: List of `(start, stop)`, the entries to write; the others are zeros. Defaults to
            `None`, all entries.
    """
    text = np.frombuffer(json.dumps(header, default=np.generic.item).encode(), np.uint8)
    ranges = {name: [(0, len(array))] if used is None else used for name, array in arrays.items()}
    with replaced(path) as unfinished:
        reserve(unfinished, _largest_size(text, arrays, ranges))
        _write(unfinished, kind, text, arrays, ranges)


def _write(
    path: str, kind: Kind, text: NDArray, arrays: dict[str, NDArray], ranges: dict[str, Ranges]
) -> None:
    with h5py.File(path, "w", libver=("v110", "v110")) as file:  # 1.10: checksums on metadata
        file.attrs["format"] = kind.mark
        file.attrs["version"] = kind.version
        file.create_dataset("header", data=text, chunks=text.shape, fletcher32=True)
        for name, array in arrays.items():
            rows = _chunk_rows(array)
            dataset = file.create_dataset(
                name, array.shape, array.dtype, chunks=(rows, *array.shape[1:]), fletcher32=True
            )
            for start, stop in ranges[name]:
                dataset[start:stop] = array[start:stop]


def _chunk_rows(array: NDArray) -> int:
    """Returns the rows of a chunk: chunks of equal size, because the last one is stored whole."""
    most = max(1, min(len(array), _CHUNK_BYTES // max(1, array[:1].nbytes)))
    num_chunks = -(-len(array) // most)
    return -(-len(array) // num_chunks)


def _largest_size(text: NDArray, arrays: dict[str, NDArray], ranges: dict[str, Ranges]) -> int:
    """Returns the largest possible size in bytes: whole chunks, and room for the rest."""
    size = len(text) + 4_096
    for name, array in arrays.items():
        rows = _chunk_rows(array)
        chunks = sum((stop - start) // rows + 2 for start, stop in ranges[name])
        size += min(chunks, len(array) // rows + 1) * (rows * array[:1].nbytes + 64) + 4_096
    return size


def read_header(path: str, kind: Kind) -> dict:
    """Returns the header of a file.

    Raises:
        FileNotFoundError: If the file does not exist.
        DamagedFileError: If the file is truncated, or of another kind.
        ValueError: If it has another version.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"`path` must be a file. Received: path={path!r}")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != kind.mark:
                raise _refusal(path, kind, f"it was not written by `{kind.writer}`")
            if file.attrs["version"] != kind.version:
                reason = f"it is of version {file.attrs['version']}, not {kind.version}"
                raise ValueError(str(_refusal(path, kind, reason)))
            dataset = _dataset(file, path, kind, "header")
            if dataset.nbytes > dataset.id.get_storage_size():  # a few bytes can say "a terabyte"
                raise _refusal(path, kind, "its header is not whole")
            text = dataset[:].tobytes()
    except (OSError, KeyError, RuntimeError) as error:
        raise _refusal(path, kind, f"HDF5 cannot read it ({error})") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, kind, f"its header cannot be read ({error})") from error


def read_arrays(path: str, kind: Kind, arrays: dict[str, NDArray], used: Ranges) -> None:
    """Fills arrays from a file.

    Raises:
        DamagedFileError: If an array is missing or damaged, or has another shape or dtype.
    """
    with h5py.File(path, "r") as file:
        for name, array in arrays.items():
            wanted = f"not {array.dtype} {array.shape}"
            dataset = _dataset(file, path, kind, name, f", {wanted}")
            if dataset.shape != array.shape or dataset.dtype != array.dtype:
                raise _refusal(path, kind, f"its {name!r} is {dataset}, {wanted}")
            rows = sum(stop - start for start, stop in used)
            if rows * array[:1].nbytes > dataset.id.get_storage_size():
                reason = f"its {name!r} holds fewer than the {rows} rows it counts"
                raise _refusal(path, kind, reason)
            try:
                for start, stop in used:
                    array[start:stop] = dataset[start:stop]
            except OSError as error:
                raise _refusal(path, kind, f"its {name!r} is damaged ({error})") from error


def read_all_arrays(path: str, kind: Kind) -> dict[str, NDArray]:
    """Returns all arrays of a file.

    Raises:
        DamagedFileError: If an array is damaged.
    """
    arrays = {}
    try:
        with h5py.File(path, "r") as file:
            for name in file:
                if name != "header":
                    dataset = _dataset(file, path, kind, name)
                    if dataset.nbytes > dataset.id.get_storage_size():
                        raise _refusal(path, kind, f"its {name!r} is not whole")
                    arrays[name] = dataset[()]
    except (OSError, RuntimeError) as error:
        raise _refusal(path, kind, f"HDF5 cannot read it ({error})") from error
    return arrays


def _dataset(file: h5py.File, path: str, kind: Kind, name: str, wanted: str = "") -> h5py.Dataset:
    """Returns a dataset that is stored in the file itself."""
    try:
        link = file.get(name, getlink=True)
        dataset = file[name] if isinstance(link, h5py.HardLink) else None
        whole = isinstance(dataset, h5py.Dataset) and not (dataset.external or dataset.is_virtual)
    except (KeyError, OSError, RuntimeError) as error:
        raise _refusal(path, kind, f"its {name!r} is damaged ({error})") from error
    if not whole:
        raise _refusal(path, kind, f"its {name!r} is missing or is stored elsewhere{wanted}")
    return dataset


def _refusal(path: str, kind: Kind, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"`path` holds no {kind.name} that can be loaded: {reason}. Received: {path=}"
    )
