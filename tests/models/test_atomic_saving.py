"""An agent's file is the old one or the new one, whatever interrupts the saving."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn.files import replaced

CHILD = """
import sys, keras, numpy as np, keras_dqn
network = keras.Sequential([keras.Input((3,)), *[keras.layers.Dense(400) for _ in range(8)],
                            keras.layers.Dense(2)])
agent = keras_dqn.DQN(network)
agent.compile("adam")
how, path = sys.argv[1:]
checkpoint = keras.callbacks.ModelCheckpoint(path)
checkpoint.set_model(agent)
print("ready", flush=True)
while True:
    if how == "save":
        agent.save(path)
    elif how == "weights":
        agent.save_weights(path)
    else:
        checkpoint.on_epoch_end(0, {})
    print("saved", flush=True)
"""
PATHS = {"save": "agent.keras", "checkpoint": "agent.keras", "weights": "agent.weights.h5"}


def loads(path):
    if path.suffix == ".keras":
        keras.models.load_model(path)
    else:
        network = keras.Sequential(
            [
                keras.Input((3,)),
                *[keras.layers.Dense(400) for _ in range(8)],
                keras.layers.Dense(2),
            ]
        )
        keras_dqn.DQN(network).load_weights(path)


def kill_while_saving(how, directory, kills, rng):
    path = directory / PATHS[how]
    interrupted = 0
    for _ in range(kills):
        command = [sys.executable, "-c", CHILD, how, path]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, **pipes) as child:
            while child.stdout.readline() != "saved\n":
                assert child.poll() is None
            time.sleep(rng.uniform(0, 0.2))
            child.send_signal(signal.SIGKILL)
        interrupted += any("partial" in name for name in os.listdir(directory))
        loads(path)
    # What the last killed process has left goes with the next save.
    with replaced(path, "".join(path.suffixes[-2:]) if how == "weights" else None) as unfinished:
        pathlib.Path(unfinished).write_bytes(path.read_bytes())
    assert os.listdir(directory) == [path.name]
    return interrupted


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("how", PATHS)
def test_two_kills_leave_a_file_that_loads(how, tmp_path):
    kill_while_saving(how, tmp_path, 2, np.random.default_rng(0))


@pytest.mark.hard
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("how", PATHS)
def test_twenty_kills_leave_a_file_that_loads(how, tmp_path):
    assert kill_while_saving(how, tmp_path, 20, np.random.default_rng(1)) > 0


def contents(path):
    return path.read_bytes()


@pytest.mark.parametrize("how", ["save", "weights"])
def test_a_failed_save_leaves_the_old_file_and_no_debris(make_agent, tmp_path, how, monkeypatch):
    agent, path = make_agent(), tmp_path / PATHS[how]
    save = agent.save if how == "save" else agent.save_weights
    save(path)
    before = contents(path)

    def fails(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        save(path)
    assert contents(path) == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """RLIMIT_FSIZE stands in for a full disk: no file of the process can grow beyond it."""
    full_disk(tmp_path, [1, 200])


@pytest.mark.hard
def test_a_disk_that_is_full_at_twenty_sizes(tmp_path):
    full_disk(tmp_path, np.geomspace(1, 400, 20).astype(int).tolist())


def full_disk(directory, sizes_kb):
    path = directory / "agent.keras"
    network = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(400), keras.layers.Dense(400)]
    )
    agent = keras_dqn.DQN(network)
    agent.save(path)
    before = contents(path)
    code = (
        "import os, pathlib, resource, signal, sys, keras, keras_dqn\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "before = path.read_bytes()\n"
        "agent = keras.models.load_model(path)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for size in map(int, sys.argv[2:]):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 1024, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        agent.save(path)\n"
        "        print('saved at', size)\n"
        "        before = path.read_bytes()\n"
        "    except Exception:\n"
        "        assert path.read_bytes() == before\n"
        "    assert os.listdir(path.parent) == [path.name]\n"
    )
    command = [sys.executable, "-c", code, path, *map(str, sizes_kb)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert os.listdir(directory) == [path.name]
    keras.models.load_model(path)
    if "saved at" not in done.stdout:
        assert contents(path) == before


def test_an_agent_with_a_built_network_saves_and_loads_before_compile(make_network, tmp_path):
    agent, other = keras_dqn.DQN(make_network()), keras_dqn.DQN(make_network())
    agent.save_weights(tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    for a, b in zip(agent.network.get_weights(), other.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    agent.save(tmp_path / "a.keras")
    x = np.ones((2, 3), np.float32)
    loaded = keras.models.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(loaded.act(x), agent.act(x))


def test_sharded_weights_and_no_overwriting_go_on_working(make_agent, tmp_path):
    agent, other = make_agent(), make_agent()
    path = tmp_path / "agent.keras"
    agent.save(path)
    with pytest.raises((OSError, ValueError, EOFError)):
        agent.save(path, overwrite=False)  # Keras asks, and nobody answers
    agent.save_weights(tmp_path / "sharded.weights.json", max_shard_size=1.0)
    other.load_weights(tmp_path / "sharded.weights.json")
    np.testing.assert_array_equal(other.network.get_weights()[0], agent.network.get_weights()[0])
