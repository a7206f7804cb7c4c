"""Writes a state (see `stateful.py`) to one HDF5 file and reads it; nothing in it can run code."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn import hdf5

_KIND = hdf5.Kind("checkpoint", 1, "TrainingCheckpoint")
_MARK = "__array__"
# What a damaged or hostile state can raise.
_WRONG = (
    KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, MemoryError
)  # fmt: skip


def write_state(path: str, state: dict[str, Any]) -> None:
    """Writes a state; after a crash the old file or the new one is there.

    Args:
        path: String, the path of the file.
        state: Dict of plain JSON values, NumPy arrays, and lists and dicts of them.

    Raises:
        TypeError: If the state holds something else.
        OSError: If the file cannot be written.
    """
    arrays: dict[str, NDArray] = {}
    skeleton = _without_arrays(state, arrays)
    hdf5.write_file(path, _KIND, skeleton, arrays)


def check_state(state: Any) -> None:
    """Raises a `TypeError` if `write_state` could not write a state."""
    _without_arrays(state, {})


def read_header(path: str) -> dict[str, Any]:
    """Returns a state that has descriptions in the places of its arrays."""
    return hdf5.read_header(path, _KIND)


def read_state(path: str) -> dict[str, Any]:
    """Returns the state in a file; its tuples have become lists.

    Raises:
        DamagedFileError: If the file is damaged.
        ValueError: If its format has another version.
    """
    header = read_header(path)
    try:
        return _with_arrays(header, hdf5.read_all_arrays(path, _KIND))
    except _WRONG as error:
        if isinstance(error, hdf5.DamagedFileError):
            raise
        raise hdf5.DamagedFileError(
            f"`path` holds no checkpoint that can be loaded ({error!r}). Received: {path=}"
        ) from error


def _without_arrays(value: Any, arrays: dict[str, NDArray]) -> Any:
    """Returns a value that JSON can hold, and moves its arrays to `arrays`."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"The keys of a state must be strings. Received: {list(value)}")
        return {key: _without_arrays(part, arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(part, arrays) for part in value]
    if isinstance(value, np.generic) and value.dtype.kind not in "OUSMm":
        return {_MARK: None, "dtype": value.dtype.name, "value": value.item()}
    if isinstance(value, np.ndarray) and value.dtype.kind not in "OUSMm":
        name = f"array{len(arrays)}"
        if value.size:
            arrays[name] = _storable(value)
        return {_MARK: name, "dtype": value.dtype.name, "shape": list(value.shape)}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(
        "A state must hold plain JSON values and arrays of numbers. Received: a value of type "
        f"{type(value)}"
    )


def _with_arrays(value: Any, arrays: dict[str, NDArray]) -> Any:
    if isinstance(value, list):
        return [_with_arrays(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    if _MARK not in value:
        return {key: _with_arrays(part, arrays) for key, part in value.items()}
    dtype = np.dtype(value["dtype"])
    if dtype.kind in "OUSMmV" and not dtype.name.startswith(("bfloat", "float", "int", "uint")):
        raise TypeError(f"no numbers: {dtype}")  # a "void" could be a terabyte
    if "value" in value:
        return dtype.type(value["value"])
    shape = tuple(value["shape"])
    if 0 in shape:
        return np.zeros(shape, dtype)
    return arrays[value[_MARK]].view(dtype).reshape(shape)


def _storable(array: NDArray) -> NDArray:
    """Returns an array of at least one axis, of a dtype that HDF5 knows."""
    array = np.ascontiguousarray(np.atleast_1d(array))
    if array.dtype.kind in "biufc":
        return array
    return array.view(f"u{array.dtype.itemsize}")  # bfloat16 and other dtypes of accelerators
