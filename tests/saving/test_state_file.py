"""States in files: what JSON and NumPy hold comes back as it was, and nothing else goes in."""

import json
import math
import pickle

import h5py
import ml_dtypes
import numpy as np
import pytest

from keras_dqn import hdf5
from keras_dqn.hdf5 import DamagedFileError
from keras_dqn.saving import state_file
from keras_dqn.saving.state_file import read_header, read_state, write_state


def test_a_state_comes_back_as_it_was(tmp_path):
    path = str(tmp_path / "state.h5")
    state = {
        "none": None,
        "text": "x",
        "flag": True,
        "large": 2**127 + 1,
        "nan": math.nan,
        "infinity": -math.inf,
        "number": np.float32(0.1),
        "nested": [{"a": np.arange(6, dtype=np.int16).reshape(2, 3)}, [np.array(3.5)]],
        "empty": np.zeros((0, 4), np.uint8),
        "bools": np.array([True, False]),
        "half": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "scattered": np.arange(10)[::3],
    }
    write_state(path, state)
    read = read_state(path)
    assert math.isnan(read.pop("nan"))
    del state["nan"]
    assert read.keys() == state.keys()
    assert read["number"] == np.float32(0.1)
    assert type(read["number"]) is np.float32
    for mine, theirs in (
        (state["nested"][0]["a"], read["nested"][0]["a"]),
        (state["nested"][1][0], read["nested"][1][0]),
        *((state[name], read[name]) for name in ("empty", "bools", "half", "scattered")),
    ):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(mine, theirs)
    for name in ("none", "text", "flag", "large", "infinity"):
        assert read[name] == state[name]


@pytest.mark.parametrize(
    "value",
    [object(), {1: "x"}, np.array(["a"]), np.array([None]), {1, 2}, b"bytes"],
    ids=["object", "key", "strings", "objects", "set", "bytes"],
)
def test_what_a_state_cannot_hold_is_refused(value, tmp_path):
    with pytest.raises(TypeError, match="state must"):
        write_state(str(tmp_path / "state.h5"), {"value": value})
    assert not list(tmp_path.iterdir())


def test_a_file_holds_no_pickle(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("code ran",))

    path = str(tmp_path / "state.h5")
    write_state(path, {"a": np.arange(3.0)})
    with h5py.File(path, "r+") as file:
        payload = np.frombuffer(pickle.dumps(Harmful()), np.uint8)
        header = json.dumps({"a": {"__array__": "x", "dtype": "object", "shape": [1]}})
        del file["header"]
        file.create_dataset("x", data=payload, chunks=payload.shape, fletcher32=True)
        text = np.frombuffer(header.encode(), np.uint8)
        file.create_dataset("header", data=text, chunks=text.shape, fletcher32=True)
    with pytest.raises(DamagedFileError, match="no checkpoint that can be loaded"):
        read_state(path)


def test_any_damage_is_noticed(tmp_path):
    path = tmp_path / "state.h5"
    state = {"a": np.arange(300.0), "b": [1, 2, "three"]}
    write_state(str(path), state)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = 0
    for _ in range(200):
        contents = bytearray(whole)
        where = rng.integers(len(whole))
        contents[where] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(contents))
        try:
            read = read_state(str(path))
        except ValueError:  # also another version, if its number was changed
            damaged += 1
        else:  # a byte that holds nothing
            np.testing.assert_array_equal(read["a"], state["a"])
            assert read["b"] == state["b"]
    assert damaged > 100
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError):
            read_state(str(path))


@pytest.mark.parametrize("dtype", ["V8", "S8", "O", "i4,i4", "int8"])
def test_values_that_are_no_numbers_are_refused(dtype, tmp_path):
    path = str(tmp_path / "state.h5")
    value = {"__array__": None, "dtype": dtype, "value": 1 << 70}
    hdf5.write_file(path, state_file._KIND, {"x": value}, {})
    with pytest.raises(hdf5.DamagedFileError, match="holds no checkpoint that can be loaded"):
        state_file.read_state(path)


def test_a_small_file_cannot_ask_for_much_memory(tmp_path):
    path = str(tmp_path / "state.h5")
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs["format"], file.attrs["version"] = state_file._KIND.mark, 1
        file.create_dataset("header", (1 << 46,), np.uint8, chunks=(1 << 10,))
    with pytest.raises(hdf5.DamagedFileError, match="its header is not whole"):
        state_file.read_state(path)


def test_the_version_is_checked(tmp_path):
    path = str(tmp_path / "state.h5")
    write_state(path, {"a": 1})
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(ValueError, match="it is of version 2, not 1") as caught:
        read_header(path)
    assert not isinstance(caught.value, DamagedFileError)
