"""Damaged and forged files of replay buffers: refused with their path, or equal; never silence."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import gymnasium as gym
import h5py
import numpy as np
import pytest
from conftest import damage

from keras_dqn import PrioritizedReplayBuffer, ReplayBuffer

SPACE = gym.spaces.Box(-1e6, 1e6, (2,))


def filled(**kwargs):
    replay = PrioritizedReplayBuffer(
        40, SPACE, gym.spaces.Discrete(3), num_envs=2, seed=0, **kwargs
    )
    rng = np.random.default_rng(0)
    for step in range(30):
        ends = np.array([step % 5 == 4, step % 7 == 6])
        observation, following = rng.normal(size=(2, 2, 2))
        replay.add(
            observation, rng.integers(3, size=2), rng.normal(size=2), ends, ~ends & False, following
        )
    replay.update_priorities(replay.sample(16)[1]["key"], np.arange(16.0))
    return replay


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    filled().save(folder / "replay.h5")
    filled(storage="memmap", directory=folder / "memmap").flush()
    return folder


def forged_h5(path, change):
    """Changes a file through h5py, which writes valid checksums."""
    with h5py.File(path, "r+") as file:
        header = json.loads(file["header"][:].tobytes())
        change(file, header)
        del file["header"]
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        file.create_dataset("header", data=text, chunks=text.shape, fletcher32=True)


def set_rows(name, value):
    def change(file, header):
        file[name][3] = value

    return change


def set_counter(name, value):
    def change(file, header):
        header["counters"][name] = value

    return change


def set_config(name, value):
    def change(file, header):
        header["config"][name] = value

    return change


def no_counters(file, header):
    del header["counters"]


def external_link(file, header):
    del file["reward"]
    file["reward"] = h5py.ExternalLink("/etc/hostname", "reward")


def soft_link(file, header):
    del file["reward"]
    file["reward"] = h5py.SoftLink("/priority_value")


def huge(file, header):
    """400 million rows, declared in a file of a few kilobytes, and counted too."""
    rows = 400_000_000
    header["config"]["capacity"] = 2 * (rows - 1)
    header["counters"]["heads"] = [rows - 1] * 2
    header["counters"]["seen_heads"] = [rows - 1] * 2
    for name in list(file):
        if name != "header":
            old = file[name]
            shape, dtype = (2 * rows, *old.shape[1:]), old.dtype
            del file[name]
            file.create_dataset(name, shape, dtype, chunks=(1000, *shape[1:]))


FORGED = {
    "an action outside the space": set_rows("action", 7),
    "a negative action": set_rows("action", -1),
    "a NaN reward": set_rows("reward", np.nan),
    "an infinite observation": set_rows("observation0", np.inf),
    "a NaN priority": set_rows("priority_value", np.nan),
    "a negative priority": set_rows("priority_value", -1.0),
    "unknown flags": set_rows("flags", 200),
    "a head of 10^18": set_counter("heads", [10**18, 0]),
    "a negative head": set_counter("heads", [-1, 0]),
    "heads that are text": set_counter("heads", "many"),
    "too few heads": set_counter("heads", [3]),
    "runs that are numbers": set_counter("runs", [2, 3]),
    "an infinite largest priority": set_counter("largest_priority", float("inf")),
    "updates below zero": set_counter("updates", -5),
    "more seen than written": set_counter("seen_heads", [99, 99]),
    "another generator": set_counter("generator", {"bit_generator": "PCG64"}),
    "no counters": no_counters,
    "a capacity of text": set_config("capacity", "many"),
    "a capacity of 10^30": set_config("capacity", 10**30),
    "another capacity": set_config("capacity", 400),
    "an external link": external_link,
    "a soft link": soft_link,
    "400 million rows": huge,
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_forged_content_is_refused(originals, tmp_path, change):
    path = tmp_path / "replay.h5"
    shutil.copy(originals / "replay.h5", path)
    forged_h5(path, change)
    with pytest.raises(ValueError, match=r"`path` .*replay\.h5") as said:
        PrioritizedReplayBuffer.load(path)
    assert "\n" not in str(said.value)


FORGED_ARRAYS = {
    "an action outside the space": ("action", 3, 7),
    "a NaN reward": ("reward", 3, np.nan),
    "unknown flags": ("flags", 3, 200),
    "a NaN priority": ("priority_value", 3, np.nan),
    "a negative count": ("counts", (0, 0), -3),
    "a running flag of 7": ("counts", (1, 0), 7),
}


@pytest.mark.parametrize(("name", "at", "value"), FORGED_ARRAYS.values(), ids=FORGED_ARRAYS)
def test_forged_arrays_of_a_directory_are_refused(originals, tmp_path, name, at, value):
    path = shutil.copytree(originals / "memmap", tmp_path / "memmap")
    array = np.load(path / f"{name}.npy")
    array[at] = value
    np.save(path / f"{name}.npy", array)
    with pytest.raises(ValueError, match=r"`(path|directory)` .*memmap"):
        PrioritizedReplayBuffer.load(path)


def equal(replay, other):
    np.testing.assert_equal(other.get_state(), replay.get_state())


def try_damages(originals, folder, count, rng):
    """Returns how many damaged files were refused."""
    expected = {
        "replay.h5": PrioritizedReplayBuffer.load(originals / "replay.h5"),
        "memmap": filled(),
    }
    refused = 0
    for i in range(count):
        name = ("replay.h5", "memmap")[i % 2]
        path = folder / f"{i} {name}"
        file = path
        if name == "memmap":
            shutil.copytree(originals / name, path)
            file = sorted(path.iterdir())[rng.integers(len(list(path.iterdir())))]
        else:
            shutil.copy(originals / name, path)
        file.write_bytes(damage(file.read_bytes(), rng))
        try:
            loaded = PrioritizedReplayBuffer.load(path)
        except (ValueError, FileNotFoundError) as error:
            refused += 1 if name in str(error) else pytest.fail(f"no path in: {error}")
        else:
            if name == "replay.h5":  # all of it carries checksums
                equal(expected[name], loaded)
            loaded.sample(8)
        (shutil.rmtree if path.is_dir() else os.remove)(path)
    return refused


def test_damaged_files(originals, tmp_path):
    """A small sample; `python -m pytest -m hard` tries 500 of each format."""
    assert try_damages(originals, tmp_path, 60, np.random.default_rng(0)) > 20


@pytest.mark.hard
def test_damaged_files_in_full(originals, tmp_path):
    refused = try_damages(originals, tmp_path, 1_000, np.random.default_rng(1))
    print(f"{refused} of 1,000 damaged files were refused")
    assert refused > 300


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in kilobytes")
@pytest.mark.parametrize("variant", ["proportional", "rank"])
def test_capacity_beyond_the_stored_rows_takes_no_memory(tmp_path, variant):
    replay = PrioritizedReplayBuffer(
        40_000_000, SPACE, gym.spaces.Discrete(3), num_envs=1, variant=variant, seed=0
    )
    for step in range(50):
        replay.add(np.zeros(2), step % 3, 1.0, step % 5 == 4, False, np.ones(2))
    replay.save(tmp_path / "replay.h5")
    code = (
        "import resource, sys, keras_dqn\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "keras_dqn.PrioritizedReplayBuffer.load(sys.argv[2])\n"
        "before = peak()\n"
        "replay = keras_dqn.PrioritizedReplayBuffer.load(sys.argv[1])\n"
        "replay.sample(64)\n"
        "assert len(replay) == 50\n"
        "print(peak() - before)\n"
    )
    small = PrioritizedReplayBuffer(40, SPACE, gym.spaces.Discrete(3), variant=variant)
    small.add(np.zeros(2), 0, 1.0, True, False, np.ones(2))
    small.save(tmp_path / "small.h5")
    command = [sys.executable, "-c", code, tmp_path / "replay.h5", tmp_path / "small.h5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # All arrays would be 2 GB.
    assert int(done.stdout.split()[-1]) < 64_000 + 2 * os.path.getsize(tmp_path / "replay.h5") / 1e3


@pytest.mark.hard
@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE")
def test_a_disk_that_is_full_at_twenty_sizes_leaves_the_old_file(tmp_path):
    replay = filled()
    path = tmp_path / "replay.h5"
    replay.save(path)
    before = path.read_bytes()
    code = (
        "import resource, signal, sys, keras_dqn\n"
        "replay = keras_dqn.PrioritizedReplayBuffer.load(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for size in map(int, sys.argv[2:]):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        replay.save(sys.argv[1])\n"
        "    except Exception:\n"
        "        continue\n"
        "    print('saved')\n"
    )
    sizes = np.linspace(10, len(before) - 10, 20).astype(int).tolist()
    command = [sys.executable, "-c", code, path, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "saved" not in done.stdout
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


# Directories of mapped arrays


def test_a_directory_can_be_loaded_after_the_first_step(tmp_path):
    """A process that is killed before the first `flush` once lost everything."""
    replay = ReplayBuffer(
        20, SPACE, gym.spaces.Discrete(3), storage="memmap", directory=tmp_path / "m", seed=0
    )
    for step in range(5):
        replay.add(np.full(2, step), step % 3, 1.0, False, False, np.full(2, step + 1))
    del replay  # no flush
    loaded = ReplayBuffer.load(tmp_path / "m")
    assert len(loaded) == 5
    assert set(loaded.sample(200)[0][:, 0]) == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_a_directory_that_holds_arrays_is_refused(tmp_path):
    np.save(tmp_path / "reward.npy", np.ones(3))
    with pytest.raises(ValueError, match="`directory` holds arrays already"):
        ReplayBuffer(20, SPACE, gym.spaces.Discrete(3), storage="memmap", directory=tmp_path)
    assert np.load(tmp_path / "reward.npy").tolist() == [1.0] * 3


def test_a_full_disk_is_told_when_the_buffer_is_made(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"`capacity` needs .* No space left on device"):
        ReplayBuffer(20, SPACE, gym.spaces.Discrete(3), storage="memmap", directory=tmp_path / "m")
    assert not list(pathlib.Path(tmp_path / "m").glob("*.npy"))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no posix_fallocate")
def test_the_space_is_reserved(tmp_path):
    ReplayBuffer(5_000, SPACE, gym.spaces.Discrete(3), storage="memmap", directory=tmp_path / "m")
    for file in (tmp_path / "m").glob("*.npy"):
        assert file.stat().st_blocks * 512 >= file.stat().st_size
