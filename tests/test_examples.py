"""Each example is short, has a header in the form of keras.io, and runs to its end."""

import ast
import csv
import importlib.util
import pathlib
import re
import runpy
import sys

import keras
import pytest

from keras_dqn.integrations.tf_agents import INSTALL_COMMAND

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
PAGE = (FOLDER.parent / "docs" / "examples.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))

HEADER = r"""
Title: .+
Author: The keras_dqn authors
Date created: 20\d\d/[01]\d/[0-3]\d
Last modified: 20\d\d/[01]\d/[0-3]\d
Description: .+\.
Accelerator: None
"""

# Arguments that make each run short, and what its last line begins with.
RUNS = {
    "atari.py": ("--env-steps 5400 --video videos", "return "),
    "beyond_the_rainbow.py": ("--env-steps 2640", "return "),
    "cartpole.py": ("--env-steps 3100", "return "),
    "ddpg.py": ("--epochs 1", "mean returns of five episodes"),
    "forbidden_actions.py": ("--env-steps 1200", "return "),
    "many_actors.py": ("--env-steps 1500", "return "),
    "mean_teacher.py": ("--epochs 1", "with consistency: accuracy of the student"),
    "minatar_dqn.py": ("--env-steps 1400 --video videos", "return "),
    "offline.py": ("--env-steps 1100 --episodes 10 --updates 64", "plot: "),
    "own_algorithm.py": ("--env-steps 1100", "own: return "),
    "own_loop.py": ("--env-steps 1100", "greedy return"),
    "plain_model.py": ("--epochs 1", "mean squared error on unseen steps"),
    "prioritized_replay.py": ("--states 6 --max-updates 640", "plot: "),
    "rainbow.py": ("--env-steps 1600", "return "),
    "resume.py": ("--epochs 2", "equal to the last bit: True"),
    "slow_target.py": ("--env-steps 1024 --seeds 1", "+ learning rate to 0, seed 0: return "),
    "tf_agents_replay.py": ("--epochs 1", "return after 256 updates"),
    "train_on_batch.py": ("--env-steps 1100", "greedy return"),
    "tune.py": ("--trials 1 --epochs 1", "return "),
}
NEEDS = {
    "atari.py": ("ale_py", "python -m pip install ale-py opencv-python"),
    "many_actors.py": ("ray", "python -m pip install '.[ray]'"),
    "minatar_dqn.py": ("minatar", "python -m pip install minatar"),
    "offline.py": ("minari", "python -m pip install '.[offline]'"),
    "tf_agents_replay.py": ("tf_agents", INSTALL_COMMAND),
    "tune.py": ("keras_tuner", "python -m pip install '.[tune]'"),
    "watch.py": ("moviepy", "python -m pip install '.[video]'"),
}


def write_finished_runs():
    """All runs of `slow_target.py` but the last, which it then does not repeat."""
    names = ["1 step, tau 0.05", "1 step, tau 0.005", "tau 1", "tau 0.05", "hard, every 500"]
    names += ["tau 0.005", "tau 0.001, 120,000 steps", "tutorial", "+ 5 steps, gamma 0.99"]
    for tau in ("0.005", "0.0005"):
        names += [f"tau {tau}, epsilon * 0.9", f"tau {tau}, epsilon * 0.995"]
    with open("slow_target.csv", "w", newline="") as file:
        csv.writer(file).writerows((name, 0, 2_048, 9.0, 0.5) for name in names)


def run(name, arguments, monkeypatch, capsys):
    module, command = NEEDS.get(name, ("keras_dqn", ""))
    if importlib.util.find_spec(module) is None:
        pytest.skip(command)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "argv", [name, *arguments.split()])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    return capsys.readouterr().out.strip().splitlines()[-1]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


# What TF-Agents and KerasTuner warn of is theirs.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs_to_its_end(name, monkeypatch, capsys):
    arguments, last_line = RUNS[name]
    if name == "slow_target.py":
        write_finished_runs()
    assert run(name, arguments, monkeypatch, capsys).startswith(last_line)


def test_a_recorded_episode(monkeypatch, capsys, tmp_path):
    import keras_dqn

    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    agent = keras_dqn.DQN(network)
    agent.compile()
    agent.save("cartpole.keras")
    assert run("watch.py", "", monkeypatch, capsys) == "videos/cartpole-episode-0.mp4"
    assert (tmp_path / "videos" / "cartpole-episode-0.mp4").stat().st_size > 1_000


def test_without_an_agent_to_watch_the_error_names_the_command(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run("watch.py", "", monkeypatch, capsys)
    assert "`python examples/cartpole.py` makes cartpole.keras" in capsys.readouterr().err


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_is_short_and_listed(name):
    source = (FOLDER / name).read_text(encoding="utf-8")
    header = ast.get_docstring(ast.parse(source), clean=False)
    assert len(source.removeprefix(f'"""{header}"""').strip().splitlines()) <= 80
    assert re.fullmatch(HEADER, header)
    assert f"[`examples/{name}`](../examples/{name})" in PAGE
    assert name in RUNS or name == "watch.py"


def test_help_shows_the_header(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run("ddpg.py", "--help", monkeypatch, capsys)
    assert "\nTitle: DDPG with two slow target networks\nAuthor: " in capsys.readouterr().out
