"""Writes and reads the HDF5 file of a replay buffer: arrays, and a header in JSON.

A file is written under another name, flushed to the disk and then renamed. So a crash at any time
leaves the old file or the new one. All chunks have checksums.
"""

import json
import os

import h5py
import numpy as np
from numpy.typing import NDArray

from keras_dqn.files import replaced, reserve

_FORMAT = np.bytes_("keras_dqn replay buffer")  # fixed length: other strings have no checksum
VERSION = 1
_CHUNK_BYTES = 1 << 20

Ranges = list[tuple[int, int]]


def write_file(path: str, header: dict, arrays: dict[str, NDArray], used: Ranges) -> None:
    """Writes a new file; if writing fails, the old one stays.

    Args:
        path: String, the path of the file.
        header: Dict that JSON can hold.
        arrays: Arrays of equal length.
        used: List of `(start, stop)`, the entries to write; the others are zeros.
    """
    text = np.frombuffer(json.dumps(header, default=np.generic.item).encode(), np.uint8)
    with replaced(path) as unfinished:
        reserve(unfinished, _largest_size(text, arrays, used))
        _write(unfinished, text, arrays, used)


def _write(path: str, text: NDArray, arrays: dict[str, NDArray], used: Ranges) -> None:
    with h5py.File(path, "w", libver=("v110", "v110")) as file:  # 1.10: checksums on metadata
        file.attrs["format"] = _FORMAT
        file.attrs["version"] = VERSION
        file.create_dataset("header", data=text, chunks=text.shape, fletcher32=True)
        for name, array in arrays.items():
            rows = _chunk_rows(array)
            dataset = file.create_dataset(
                name, array.shape, array.dtype, chunks=(rows, *array.shape[1:]), fletcher32=True
            )
            for start, stop in used:
                dataset[start:stop] = array[start:stop]


def _chunk_rows(array: NDArray) -> int:
    return max(1, min(len(array), _CHUNK_BYTES // max(1, array[:1].nbytes)))


def _largest_size(text: NDArray, arrays: dict[str, NDArray], used: Ranges) -> int:
    """Returns the largest possible size in bytes: whole chunks, and room for the rest."""
    size = len(text) + 4_096
    for array in arrays.values():
        rows = _chunk_rows(array)
        chunks = sum((stop - start) // rows + 2 for start, stop in used)
        size += min(chunks, len(array) // rows + 1) * (rows * array[:1].nbytes + 64) + 4_096
    return size


def read_header(path: str) -> dict:
    """Returns the header of a file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is truncated, is not a replay buffer, or has another version.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"`path` must be a file. Received: path={path!r}")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != _FORMAT:
                raise _refusal(path, "it was not written by `ReplayBuffer.save`")
            if file.attrs["version"] != VERSION:
                raise _refusal(path, f"it is of version {file.attrs['version']}, not {VERSION}")
            return json.loads(_dataset(file, path, "header")[:].tobytes())
    except (OSError, KeyError, RuntimeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _refusal(path, f"HDF5 cannot read it ({error})") from error


def read_arrays(path: str, arrays: dict[str, NDArray], used: Ranges) -> None:
    """Fills arrays from a file.

    Raises:
        ValueError: If an array is missing or damaged, or has another shape or dtype.
    """
    with h5py.File(path, "r") as file:
        for name, array in arrays.items():
            dataset = _dataset(file, path, name, f", not {array.dtype} {array.shape}")
            if dataset.shape != array.shape or dataset.dtype != array.dtype:
                raise _refusal(path, f"its {name!r} is {dataset}, not {array.dtype} {array.shape}")
            rows = sum(stop - start for start, stop in used)
            if rows * array[:1].nbytes > dataset.id.get_storage_size():
                raise _refusal(path, f"its {name!r} holds fewer than the {rows} rows it counts")
            try:
                for start, stop in used:
                    array[start:stop] = dataset[start:stop]
            except OSError as error:
                raise _refusal(path, f"its {name!r} is damaged ({error})") from error


def _dataset(file: h5py.File, path: str, name: str, wanted: str = "") -> h5py.Dataset:
    """Returns a dataset that is stored in the file itself."""
    try:
        link = file.get(name, getlink=True)
        dataset = file[name] if isinstance(link, h5py.HardLink) else None
        whole = isinstance(dataset, h5py.Dataset) and not (dataset.external or dataset.is_virtual)
    except (KeyError, OSError, RuntimeError) as error:
        raise _refusal(path, f"its {name!r} is damaged ({error})") from error
    if not whole:
        raise _refusal(path, f"its {name!r} is missing or is stored elsewhere{wanted}")
    return dataset


def _refusal(path: str, reason: str) -> ValueError:
    return ValueError(
        f"`path` holds no replay buffer that can be loaded: {reason}. Received: {path=}"
    )


def used_ranges(heads: list[int], ring_size: int) -> Ranges:
    """Returns the written slots of each ring, including the slot of its head."""
    return [
        (env * ring_size, env * ring_size + min(head + 1, ring_size))
        for env, head in enumerate(heads)
    ]
