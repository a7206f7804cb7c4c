"""A directory of checkpoints: the newest whole one counts, and one `fit` at a time uses it."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from keras_dqn.hdf5 import DamagedFileError
from keras_dqn.saving import state_file
from keras_dqn.saving.checkpoint_directory import CheckpointDirectory


def write(directory, value, files=()):
    def make_state(number):
        for file in files:
            (directory.path / file).write_bytes(b"rows")
        return {"value": value, "array": np.arange(100.0), "files": list(files)}

    directory.write(make_state)


def newest(path, max_to_keep=2):
    seen = []
    found = CheckpointDirectory(path, max_to_keep).restore_newest(lambda s: seen.append(s["value"]))
    return seen[-1] if found else None


def checkpoints(path):
    return sorted(file.name for file in path.glob("checkpoint-*"))


def test_an_empty_directory_has_nothing_to_restore(tmp_path):
    assert newest(tmp_path / "none") is None
    assert CheckpointDirectory(tmp_path, 2).is_empty


@pytest.mark.parametrize("max_to_keep", [1, 3])
def test_the_newest_are_kept_with_their_files(max_to_keep, tmp_path):
    directory = CheckpointDirectory(tmp_path, max_to_keep)
    for value in range(5):
        write(directory, value, [f"rows-0-{value}-0.h5", "rows-0-0-0.h5"])
    assert newest(tmp_path) == 4
    numbers = range(6 - max_to_keep, 6)
    assert checkpoints(tmp_path) == [f"checkpoint-{number:08d}.h5" for number in numbers]
    rows = sorted(file.name for file in tmp_path.glob("rows-*"))
    assert rows == sorted({"rows-0-0-0.h5", *(f"rows-0-{n - 1}-0.h5" for n in numbers)})


def test_another_process_keeps_the_files_of_the_checkpoint_before(tmp_path):
    write(CheckpointDirectory(tmp_path, 2), 0, ["rows-0-1-0.h5"])
    write(CheckpointDirectory(tmp_path, 2), 1, ["rows-0-2-0.h5"])
    assert (tmp_path / "rows-0-1-0.h5").exists()
    write(CheckpointDirectory(tmp_path, 2), 2, ["rows-0-3-0.h5"])
    assert not (tmp_path / "rows-0-1-0.h5").exists()


def test_a_path_that_is_no_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match="`directory` must be a directory that can be written"):
            with CheckpointDirectory(path, 2).locked():
                pass


def test_a_damaged_newest_one_falls_back_and_is_renamed(tmp_path):
    directory = CheckpointDirectory(tmp_path, 2)
    for value in range(3):
        write(directory, value)
    path = tmp_path / "checkpoint-00000003.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.warns(UserWarning, match="newest checkpoint is damaged.*damaged-checkpoint-0000"):
        assert newest(tmp_path) == 1
    assert (tmp_path / "damaged-checkpoint-00000003.h5").exists()
    assert newest(tmp_path) == 1  # without a second warning
    write(CheckpointDirectory(tmp_path, 2), 7)
    assert newest(tmp_path) == 7
    assert len(checkpoints(tmp_path)) == 2


def test_a_damaged_file_of_a_checkpoint_falls_back(tmp_path):
    directory = CheckpointDirectory(tmp_path, 2)
    write(directory, 0)
    write(directory, 1)

    def restore(state):
        if state["value"] == 1:
            raise DamagedFileError("A file of rows is missing.")
        restored.append(state["value"])

    restored = []
    with pytest.warns(UserWarning, match="A file of rows is missing"):
        assert CheckpointDirectory(tmp_path, 2).restore_newest(restore)
    assert restored == [0]


def test_nothing_begins_anew_if_all_are_damaged(tmp_path):
    directory = CheckpointDirectory(tmp_path, 2)
    for value in range(2):
        write(directory, value)
    for path in tmp_path.glob("checkpoint-*"):
        path.write_bytes(b"nothing")
    for _ in range(2):  # nor the second time
        with pytest.raises(ValueError, match="all are damaged"):
            newest(tmp_path)


def test_another_version_is_refused_and_stays(tmp_path, monkeypatch):
    directory = CheckpointDirectory(tmp_path, 2)
    write(directory, 0)
    monkeypatch.setattr(state_file, "_KIND", state_file._KIND._replace(version=2))
    write(directory, 1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="it is of version 2, not 1"):
        newest(tmp_path)
    assert len(checkpoints(tmp_path)) == 2


def test_a_failed_write_leaves_the_last_checkpoint_and_the_next_one_works(tmp_path, monkeypatch):
    directory = CheckpointDirectory(tmp_path, 2)
    write(directory, 0, ["rows-0-1-0.h5"])

    def full(path, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("keras_dqn.hdf5.reserve", full)
    with pytest.raises(OSError, match="No space"):
        write(directory, 1, ["rows-0-2-0.h5"])
    monkeypatch.undo()
    assert newest(tmp_path) == 0
    write(directory, 2, ["rows-0-3-0.h5"])
    # The number of the failed one is not used again: its files may be in use.
    assert checkpoints(tmp_path) == ["checkpoint-00000001.h5", "checkpoint-00000003.h5"]
    assert newest(tmp_path) == 2


def test_two_fits_cannot_use_one_directory(tmp_path):
    with CheckpointDirectory(tmp_path, 2).locked():
        with pytest.raises(RuntimeError, match="in use by another `fit`"):
            with CheckpointDirectory(tmp_path / ".", 2).locked():
                pass
        assert _locks_in_another_process(tmp_path) == "in use"
    assert _locks_in_another_process(tmp_path) == "free"
    with CheckpointDirectory(tmp_path, 2).locked():
        pass


def test_a_child_process_does_not_keep_the_lock(tmp_path):
    read, write_end = os.pipe()
    with CheckpointDirectory(tmp_path, 2).locked():
        child = os.fork()
        if child == 0:  # like a worker of an environment, which outlives a killed `fit`
            os.close(write_end)
            os.read(read, 1)
            os._exit(0)
    os.close(read)
    assert _locks_in_another_process(tmp_path) == "free"
    os.close(write_end)
    os.waitpid(child, 0)


def _locks_in_another_process(path):
    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'a')\n"
        "try:\n    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except OSError:\n    print('in use')\n"
        "else:\n    print('free')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path / "lock")], capture_output=True, text=True
    )
    return done.stdout.strip()
