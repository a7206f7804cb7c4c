"""A cluster that is lost ends `fit` with a clear error, and the checkpoint is whole."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("ray")
from keras_dqn.integrations import ray_cluster

FOLDER = pathlib.Path(__file__).parent
PROGRAM = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import ray
import keras, keras_dqn, ray_runs
from ray_runs import check_numbers, make_run, new_agent, numbered, train

address, directory, epochs = sys.argv[1:]
ray.cloudpickle.register_pickle_by_value(ray_runs)
address = "local" if address == "new" else address
ray.init(address, log_to_driver=False, include_dashboard=False)
replay, collect = make_run(numbered(seconds=0.005), capacity=200_000)
begins = lambda epoch, logs: print("epoch", epoch, flush=True)
epoch = keras.callbacks.LambdaCallback(on_epoch_begin=begins)
parts = [keras_dqn.TrainingCheckpoint(directory), epoch]
train(new_agent(), replay, collect, epochs=int(epochs), callbacks=parts)
print("steps", len(replay), collect.env_steps)
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def processes_of(name, port):
    """The numbers of Ray's processes of a kind that belong to the cluster of a port."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"/{name}\0" in command and f"{port}" in command:
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def head():
    """The port of a head node of its own."""
    port = free_port()
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}"]
    command += ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=120)
    yield port
    for name in ("raylet", "gcs_server"):
        for pid in processes_of(name, port):
            os.kill(pid, signal.SIGKILL)


def start(address, directory, epochs):
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, address, str(directory), str(epochs)],
        cwd=FOLDER, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.hard
@pytest.mark.parametrize("names", [["gcs_server"], ["gcs_server", "raylet"]])
def test_a_head_node_that_vanishes_ends_fit(names, head, tmp_path):
    process = start(f"127.0.0.1:{head}", tmp_path, 10_000)
    lines = iter(process.stdout.readline, "")
    assert any(line == "epoch 2\n" for line in lines)
    for name in names:
        pids = processes_of(name, head)
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    _, errors = process.communicate(timeout=90)
    seconds = time.monotonic() - began
    assert process.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: The workers are lost: "), errors
    assert f":{head}" in last
    assert seconds < 60
    continued = start("new", tmp_path, 0)
    output, errors = continued.communicate(timeout=120)
    assert continued.returncode == 0, errors
    _, rows, steps = output.split()[-3:]
    assert rows == steps
    assert int(steps) >= 40 + 2 * 40
    print(f"\n{' and '.join(names)} killed: `fit` ended after {seconds:.0f} s: {last}")


def test_without_ray_the_error_names_the_command():
    code = "import sys; sys.modules['ray'] = None; import keras_dqn.integrations.ray"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: `keras_dqn.integrations.ray` needs Ray: python -m pip")


def test_what_does_not_answer_is_lost(monkeypatch):
    clock, ended, ports = [0.0], [], [free_port(), free_port()]

    class Context:
        gcs_address = f"127.0.0.1:{ports[0]}"

        def get_node_id(self):
            return "this"

    own = {"NodeID": "this", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": ports[1]}
    monkeypatch.setattr(ray_cluster.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_cluster.ray, "get_runtime_context", Context)
    monkeypatch.setattr(ray_cluster.ray, "shutdown", lambda: ended.append(True))
    monkeypatch.setattr(ray_cluster.ray, "put", lambda value: [value])
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: [{"NodeID": "other"}, own])
    cluster = ray_cluster.Cluster()
    with socket.create_server(("127.0.0.1", ports[1])):
        with socket.create_server(("127.0.0.1", ports[0])):
            clock[0] = 6.0
            cluster.check()  # both answer
        for clock[0] in (12.0, 18.0, 24.0):  # now the head node does not
            cluster.check()
        clock[0] = 27.0
        with pytest.raises(RuntimeError, match=r"the head node of Ray does not.*Received: addr"):
            cluster.check(at_once=True)
        small, large = b"3" * 200_000, b"3" * 5_000_000
        parts = cluster.parts_of(small)
        assert ray_cluster.ray.cloudpickle.loads(b"".join(parts)) == small
        assert max(map(len, parts)) < 100_000  # else Ray puts them into its store
        (reference,) = cluster.parts_of(large)
        assert ray_cluster.ray.cloudpickle.loads(*reference) == large
    assert cluster.parts_of(small) == parts  # needs no store
    with pytest.raises(RuntimeError, match="Ray has ended on this machine"):
        cluster.parts_of(large)  # its store would end the process
    assert ended == [True, True]
