"""Saves and loads a replay buffer: one HDF5 file, or a directory of mapped arrays."""

import os
from typing import Any

import numpy as np

from keras_dqn import hdf5
from keras_dqn.replay.contents import (
    used_ranges,
    wrong_arrays,
    wrong_counters,
    wrong_priorities,
)
from keras_dqn.replay.rings import Rings
from keras_dqn.replay.storage import MemmapDirectory
from keras_dqn.replay.unfinished import drop_unfinished
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.env_spaces import num_envs_of, single_spaces
from keras_dqn.spaces.space_config import space_from_config, space_to_config


def save(buffer: Any, path: str | os.PathLike) -> None:
    """Writes a buffer to an HDF5 file."""
    counters, arrays = buffer.counters(), buffer.arrays()
    used = used_ranges(counters["heads"], len(arrays["flags"]) // buffer.num_envs)
    header = _header(buffer, counters)
    hdf5.write_file(os.fspath(path), hdf5.REPLAY_BUFFER, header, arrays, used)


def flush(buffer: Any) -> None:
    """Writes the parts of a buffer that are not in the files of its directory yet."""
    if not isinstance(buffer.storage, MemmapDirectory):
        raise ValueError(
            "`flush` is for `storage='memmap'`; `save(path)` writes a buffer in memory to a file."
        )
    counters, arrays = buffer.counters(), buffer.arrays()
    buffer.storage.write(_header(buffer, counters), arrays)


def load(cls: Any, path: str | os.PathLike, env: Any, kwargs: dict[str, Any]) -> Any:
    """Loads a buffer from a file or directory; see `ReplayBuffer.load`."""
    path = os.fspath(path)
    directory = MemmapDirectory(path, reopen=True) if os.path.isdir(path) else None
    if directory is None:
        header = hdf5.read_header(path, hdf5.REPLAY_BUFFER)
    else:
        header = directory.read_header()
    _check_header(header, cls, path)
    try:
        spaces = [space_from_config(header[name]) for name in ("observation_space", "action_space")]
        config = dict(header["config"])
        num_envs = config["num_envs"]
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise _refusal(path, f"its header is damaged ({error!r})") from error
    if env is not None:
        _check_fits(env, (*spaces, num_envs), path)
    if directory is not None:
        config.update(storage="memmap", directory=directory)
    buffer = _made(cls, spaces, config, kwargs, path)
    _fill(buffer, header.get("counters"), directory, path)
    return buffer


def _check_header(header: Any, cls: Any, path: str) -> None:
    version = header.get("version") if isinstance(header, dict) else None
    if version != (wanted := hdf5.REPLAY_BUFFER.version):
        raise ValueError(
            f"`path` must hold a replay buffer of version {wanted}. Received: path={path!r} "
            f"of version {version}"
        )
    if header.get("class") != cls.__name__:
        raise ValueError(
            f"`path` must hold a {cls.__name__}. Received: path={path!r}, a {header.get('class')}"
        )


def _made(cls: Any, spaces: list, config: dict, kwargs: dict, path: str) -> Any:
    """Makes an empty buffer with the arguments in a file."""
    config.update(kwargs)
    try:
        return cls(config.pop("capacity"), *spaces, **config)
    except (KeyError, TypeError, ValueError, MemoryError) as error:
        if any(f"`{name}`" in str(error) for name in (*kwargs, "beta", "directory")):
            raise  # the caller's argument is wrong, or the error names the directory
        raise _refusal(path, f"its header is damaged ({error!r})") from error


def _fill(buffer: Any, counters: Any, directory: MemmapDirectory | None, path: str) -> None:
    """Reads the contents, and refuses those that no buffer has written."""
    arrays = buffer.arrays()
    counted = isinstance(counters, dict) and isinstance(counters.get("heads"), list)
    wrong = "" if counted else "it has no counts of rows"
    if directory is not None and not wrong:
        directory.read(arrays, counters)
    if wrong := wrong or wrong_counters(counters, buffer.num_envs):
        raise _refusal(path, wrong)
    used = used_ranges(counters["heads"], len(arrays["flags"]) // buffer.num_envs)
    if directory is None:
        hdf5.read_arrays(path, hdf5.REPLAY_BUFFER, arrays, used)
    sizes = ActionSpec(buffer.action_space).sizes
    if wrong := wrong_arrays(arrays, used, sizes):
        raise _refusal(path, wrong)
    unfinished = buffer.storage.unfinished
    if unfinished:
        _drop_unfinished(buffer, counters, unfinished)
    try:
        buffer.restored(counters)
    except (KeyError, TypeError, ValueError) as error:
        raise _refusal(path, f"its counters are damaged ({error!r})") from error
    if unfinished:
        buffer.storage.written(counters["heads"], counters["runs"])


def _drop_unfinished(buffer: Any, counters: dict[str, Any], num_rows: int) -> None:
    """Removes the rows that a write can have damaged whose process was killed."""
    arrays, heads = buffer.arrays(), counters["heads"]
    slots, runs = drop_unfinished(arrays["flags"], heads, buffer.frame_stack, num_rows)
    counters["runs"] = runs
    for name, array in arrays.items():
        if name.startswith("priority"):
            array[slots] = 0.0


def _refusal(path: str, reason: str) -> ValueError:
    return ValueError(
        f"`path` holds no replay buffer that can be loaded: {reason}. Received: {path=}"
    )


def get_state(rings: Rings, rng: np.random.Generator, rows: bool) -> dict[str, Any]:
    """Returns the state of rows and their draws, copied; see `ReplayBuffer.get_state`."""
    counters = {
        "heads": list(rings.heads_list),
        "runs": list(rings.runs_list),
        "generator": rng.bit_generator.state,
    }
    copies = {name: array.copy() for name, array in rings.arrays().items()} if rows else None
    return counters if copies is None else {**counters, "rows": copies}


def check_state(buffer: Any, state: dict[str, Any]) -> None:
    """Raises a `ValueError` unless a state is one that `buffer.get_state` could return."""
    own = {**buffer.get_state(rows=False), "rows": buffer.row_arrays()}
    if isinstance(state, dict) and "rows" not in state:
        del own["rows"]
    kinds = [_kinds(own), _kinds(state)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "`state` must be from a buffer of the same class, capacity and spaces, with "
            f"{kinds[0]}. Received: {kinds[1]}"
        )
    wrong = wrong_counters(state, buffer.num_envs) or wrong_priorities(state.get("priorities", {}))
    try:
        np.random.default_rng().bit_generator.state = state["generator"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        wrong = wrong or f"its generator is damaged ({error!r})"
    if wrong:
        raise ValueError(f"`state` must be from a buffer. Received: {wrong}")


def _kinds(value: Any) -> Any:
    """Returns a state with each array replaced by its shape and dtype, and numbers by types."""
    if isinstance(value, dict):
        return {name: "dict" if name == "generator" else _kinds(v) for name, v in value.items()}
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__


def write_state(buffer: Any, state: dict[str, Any]) -> None:
    """Writes a state that a buffer has taken to its files, if it has any."""
    if isinstance(buffer.storage, MemmapDirectory):
        counters = {name: state[name] for name in state if name not in ("rows", "priorities")}
        values = state.get("priorities", {})
        saved = {name: values[name] for name in values if name.startswith("priority")}
        buffer.storage.write(_header(buffer, counters), {**buffer.row_arrays(), **saved})


def _header(buffer: Any, counters: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": hdf5.REPLAY_BUFFER.version,
        "class": type(buffer).__name__,
        "observation_space": space_to_config(buffer.observation_space),
        "action_space": space_to_config(buffer.action_space),
        "config": buffer.get_config(),
        "counters": counters,
    }


def _check_fits(env: Any, held: tuple, path: str) -> None:
    wanted = (*single_spaces(env), num_envs_of(env))
    names = ("observation space", "action space", "number of environments")
    for name, ours, theirs in zip(names, held, wanted, strict=True):
        if ours != theirs:
            raise ValueError(
                f"`path` must hold a replay buffer for `env`: its {name} differs. Received: "
                f"path={path!r} with {ours}, env with {theirs}"
            )
