"""`benchmarks/learning.py`: which seeds it runs, what it writes, and what it refuses."""

import csv
import importlib.util
import os
import pathlib
import sys

import keras
import pytest

import keras_dqn

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def learning():
    """The module. It sets TensorFlow's threads, but not for the processes of other tests."""
    before = dict(os.environ)
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("learning", FOLDER / "learning.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(FOLDER))
    os.environ.clear()
    os.environ.update(before)
    return module


@pytest.fixture
def command(learning, tmp_path, monkeypatch, capsys):
    """Runs the command with a file of its own, and returns what it prints."""

    def run(line):
        argv = ["learning.py", *line.split(), "--csv", str(tmp_path / "runs.csv")]
        monkeypatch.setattr(sys, "argv", argv)
        learning.main()
        return capsys.readouterr().out.splitlines()

    return run


def rows_of(tmp_path):
    with (tmp_path / "runs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_writes_each_evaluation_and_the_return_of_the_last_agent(command, tmp_path, learning):
    line = "--env CartPole-v1 --preset quick_start --env-steps 4000 --first-seed 3"
    (printed,) = command(line)
    *evaluations, final = rows_of(tmp_path)
    assert [row["final"] for row in evaluations] == ["0", "0"]  # 3,000 updates, one each 2,000
    assert final["final"] == "1"
    assert {
        (row["env"], row["preset"], row["budget"], row["seed"]) for row in rows_of(tmp_path)
    } == {("CartPole-v1", "quick_start", "4000", "3")}
    assert float(evaluations[1]["env_steps"]) == float(final["env_steps"]) == 4_000
    assert printed == f"CartPole-v1 quick_start seed 3: {float(final['val_return']):.2f}"

    keras.utils.set_random_seed(3)
    run = learning.presets.quick_start("CartPole-v1", 3, 4_000)
    run.agent.fit(
        run.data,
        epochs=run.epochs,
        steps_per_epoch=run.epoch_updates,
        callbacks=[*run.callbacks, keras_dqn.EvaluatePolicy(run.test_env, episodes=10)],
        verbose=0,
    )
    test = keras_dqn.EvaluatePolicy(run.test_env, episodes=100, seed=2_003)
    assert float(final["val_return"]) == pytest.approx(test.evaluate(run.agent), abs=0.006)


def stub(trained):
    def train(env, preset, budget, seed, checkpoints):
        trained.append((env, preset, budget, seed))
        return [[env, preset, budget, seed, budget, seed + 0.5, 0.1, 1]]

    return train


def test_only_what_is_missing_is_run(command, learning, monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(learning, "train", stub(trained))
    line = "--preset quick_start --env-steps 50 --first-seed 4"
    first = command(f"--env CartPole-v1 {line}")
    assert command(f"--env CartPole-v1 {line}") == first == ["CartPole-v1 quick_start seed 4: 4.50"]
    other = command(f"--env Acrobot-v1 {line}")  # in the same file
    assert other == ["Acrobot-v1 quick_start seed 4: 4.50"]
    command("--env CartPole-v1 --preset quick_start --env-steps 60 --first-seed 4")
    assert trained == [
        ("CartPole-v1", "quick_start", 50, 4),
        ("Acrobot-v1", "quick_start", 50, 4),
        ("CartPole-v1", "quick_start", 60, 4),
    ]
    assert len(rows_of(tmp_path)) == 3


def test_a_run_that_another_process_ended_first_is_not_added_again(command, learning, monkeypatch):
    def train(*run):
        rows = stub([])(*run)
        learning.append(pathlib.Path(sys.argv[-1]), rows)  # the other process
        return [[*rows[0][:5], 99.0, 0.1, 1]]

    monkeypatch.setattr(learning, "train", train)
    (printed,) = command("--env CartPole-v1 --first-seed 2")
    assert printed == "CartPole-v1 cart_pole seed 2: 2.50"


def test_a_seed_that_fails_is_named_at_the_end(command, learning, monkeypatch, capsys):
    def run_in_a_process(args, seed):
        if seed != 1:
            run = (args.env, args.preset, args.env_steps, seed)
            learning.append(args.csv, stub([])(*run, args.checkpoints))

    monkeypatch.setattr(learning, "run_in_a_process", run_in_a_process)
    with pytest.raises(SystemExit, match=r"no final return of the seeds \[1\]"):
        command("--env CartPole-v1 --seeds 3")
    assert capsys.readouterr().out.splitlines() == [
        "CartPole-v1 cart_pole seed 0: 0.50",
        "CartPole-v1 cart_pole seed 2: 2.50",
    ]


def test_rows_go_on_from_their_state(learning):
    one, other = learning.Rows("run"), learning.Rows("run")
    one.on_epoch_end(0, {"env_steps": 10.0, "val_return": 2.345})
    other.set_state(one.get_state())
    other.add(20, 7.0, final=1)
    assert [row[:2] + row[3:] for row in other.rows] == [[10, 2.35, 0], [20, 7.0, 1]]


def test_each_environment_has_its_peers(learning, monkeypatch):
    monkeypatch.setenv("MINATAR_DQN", __file__)  # a file that exists
    peers = learning.learning_peers
    found = {
        env: [name for name in peers.PEERS if peers.refusal(env, name, None) is None]
        for env in learning.presets.ENVIRONMENTS
    }
    stable_baselines = ["sb3-dqn", "sb3-qrdqn"]
    assert found == {
        "CartPole-v1": stable_baselines,
        "Acrobot-v1": stable_baselines,
        "MountainCar-v0": stable_baselines,
        "LunarLander-v3": stable_baselines,
        "MinAtar/Asterix-v0": ["minatar-dqn"],
        "MinAtar/Breakout-v0": ["minatar-dqn"],
        "MinAtar/Freeway-v0": ["minatar-dqn"],
        "MinAtar/Seaquest-v0": ["minatar-dqn"],
        "MinAtar/SpaceInvaders-v0": ["minatar-dqn"],
        "ALE/Pong-v5": [],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--env Acrobot-v1 --preset sb3-dqn --checkpoints states",
            "`--checkpoints` is for our presets. Received: --preset sb3-dqn",
        ),
        (
            "--env MinAtar/Breakout-v0 --preset sb3-dqn",
            "`--preset sb3-dqn` has no settings for this environment. "
            "Received: --env MinAtar/Breakout-v0",
        ),
        (
            "--env ALE/Pong-v5 --preset minatar-dqn",
            "`--preset minatar-dqn` has no settings for this environment. "
            "Received: --env ALE/Pong-v5",
        ),
        (
            "--env MinAtar/Breakout-v0 --preset minatar-dqn",
            "`MINATAR_DQN` must be the path of MinAtar's `examples/dqn.py`. Received: nowhere.py",
        ),
    ],
)
def test_what_another_library_cannot_run_is_refused(command, line, message, monkeypatch, capsys):
    monkeypatch.setenv("MINATAR_DQN", "nowhere.py")
    with pytest.raises(SystemExit):
        command(line)
    assert capsys.readouterr().err.strip().endswith(message)
