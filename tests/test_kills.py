"""A run that is killed by SIGKILL again and again ends as one that was never killed."""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from killed_run import VARIANTS, digest_of

PROGRAM = pathlib.Path(__file__).with_name("killed_run.py")


def start(variant, directory, epochs):
    command = [sys.executable, str(PROGRAM), variant, str(directory), str(epochs)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROGRAM.parent
    )


def killed(variant, directory, epochs, num_kills, seconds, seed):
    """Kills a run at random moments; returns the epochs at which it began, and its digest."""
    rng, begins = np.random.default_rng(seed), []
    for kill in range(num_kills):
        process = start(variant, directory, epochs)
        early = kill > 0 and rng.random() < 0.2  # while it starts or restores
        line = "" if early else process.stdout.readline()
        if not early:
            assert line.startswith("epoch "), line + process.stderr.read()
            begins.append(int(line.split()[1]))
        if kill == 0:  # the first one after an epoch, so that the others begin past it
            assert process.stdout.readline() == "epoch 1 begins\n"
        time.sleep(rng.uniform(0, 5.0 if early else seconds))
        process.send_signal(signal.SIGKILL)
        output, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, output + errors
    process = start(variant, directory, epochs)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "Warning" not in errors, errors
    first, *_, digest = output.splitlines()
    return [*begins, int(first.split()[1])], digest


def check(variant, tmp_path, epochs, num_kills, seconds, seed):
    begins, digest = killed(variant, tmp_path / "killed", epochs, num_kills, seconds, seed)
    assert digest == digest_of(variant, tmp_path / "whole", epochs)
    assert begins[0] == 0
    assert all(epoch > 0 for epoch in begins[1:])
    assert begins == sorted(begins)
    return begins


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    check("all", tmp_path, epochs=4, num_kills=1, seconds=0.3, seed=0)


@pytest.mark.hard
@pytest.mark.parametrize("variant", VARIANTS)
def test_twenty_kills(variant, tmp_path):
    begins = check(variant, tmp_path, epochs=80, num_kills=20, seconds=4.0, seed=1)
    print(f"\n{variant}: 20 kills; training began at the epochs {begins}")
