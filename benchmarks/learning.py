"""Learning curves: the preset of an environment, many seeds, greedy returns.

    python benchmarks/learning.py --env CartPole-v1 --first-seed 0 --seeds 20

Each seed is a process with one thread. When it ends, it adds its rows to the environment's file in
`benchmarks/learning/`: one for each evaluation during training, of ten episodes or as many as the
preset says, and a final one with the mean of 100 greedy episodes of the agent at the end. Seeds in
the file are not run again; an interrupted seed leaves no rows and begins anew, or goes on if
`--checkpoints` was given (other libraries cannot go on). `benchmarks/plot.py` reads the files.
LunarLander needs `python -m pip install "gymnasium[box2d]"`, MinAtar `pip install minatar`,
Pong `pip install ale-py`.
`benchmarks/minatar_parts.py` has MinAtar's preset with each part of the family.
`benchmarks/learning_peers.py` has the presets of other libraries, and says what they need.
"""

import argparse
import concurrent.futures
import csv
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import
os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")  # read on import too

import keras
import learning_peers
import minatar_parts
import presets

import keras_dqn

FOLDER = pathlib.Path(__file__).parent / "learning"
PRESETS = {**presets.PRESETS, **minatar_parts.PRESETS}
COLUMNS = ["env", "preset", "budget", "seed", "env_steps", "val_return", "seconds", "final"]


class Rows(keras.callbacks.Callback):
    """Keeps `[env_steps, val_return, seconds, final]` of each evaluation."""

    def __init__(self, name):
        super().__init__()
        self.rows = []
        self._name = name
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.add(logs["env_steps"], logs["val_return"])

    def get_state(self):
        return {"rows": self.rows, "seconds": time.perf_counter() - self._start}

    def set_state(self, state):
        self.rows, self._start = state["rows"], time.perf_counter() - state["seconds"]

    def add(self, env_steps, val_return, final=0):
        seconds = time.perf_counter() - self._start
        self.rows.append([int(env_steps), round(val_return, 2), round(seconds, 1), final])
        print(f"{self._name}, {env_steps:,.0f} steps: {val_return:.1f}", file=sys.stderr)


def train(env, preset, budget, seed, checkpoints=None):
    """Returns the rows of one run."""
    rows = Rows(f"{env} {preset} seed {seed}")
    if preset in learning_peers.PEERS:
        learning_peers.PEERS[preset](env, seed, budget, rows)
    else:
        train_ours(env, preset, budget, seed, rows, checkpoints)
    return [[env, preset, budget, seed, *row] for row in rows.rows]


def train_ours(env, preset, budget, seed, rows, checkpoints):
    keras.utils.set_random_seed(seed)
    run = PRESETS[preset](env, seed, budget)
    limit = {"max_episode_steps": run.max_episode_steps}
    evaluate = keras_dqn.EvaluatePolicy(
        run.test_env, episodes=run.episodes, seed=seed + 1_000, **limit
    )
    callbacks = [*run.callbacks, evaluate, rows]
    if checkpoints:
        folder = checkpoints / f"{env}-{preset}-{budget}-{seed}".replace("/", "-")
        callbacks.append(keras_dqn.TrainingCheckpoint(folder))
    history = run.agent.fit(
        run.data,
        epochs=run.epochs,
        steps_per_epoch=run.epoch_updates,
        callbacks=callbacks,
        verbose=0,
    )
    test = keras_dqn.EvaluatePolicy(run.test_env, episodes=100, seed=seed + 2_000, **limit)
    rows.add(history.history["env_steps"][-1], test.evaluate(run.agent), final=1)


def final_returns(path):
    """Returns the final return of each run in a file, by environment, preset, budget and seed."""
    with path.open(newline="") as file:
        return {
            (row["env"], row["preset"], int(row["budget"]), int(row["seed"])): float(
                row["val_return"]
            )
            for row in csv.DictReader(file)
            if row["final"] == "1"
        }


def append(path, rows, mode="a"):
    with path.open(mode, newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def run_in_a_process(args, seed):
    command = [sys.executable, __file__, "--env", args.env, "--preset", args.preset]
    command += ["--env-steps", args.env_steps, "--first-seed", seed, "--csv", args.csv]
    if args.checkpoints:
        command += ["--checkpoints", args.checkpoints]
    subprocess.run([*map(str, command)], stdout=subprocess.DEVNULL)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--env", choices=presets.ENVIRONMENTS, default="CartPole-v1")
    names = [*PRESETS, *learning_peers.PEERS]
    parser.add_argument("--preset", choices=names, help="default: the environment's own")
    parser.add_argument("--env-steps", type=int, help="budget (default: the environment's own)")
    parser.add_argument("--first-seed", type=int, default=0, help="default 0")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default 1)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (default 2)")
    parser.add_argument("--csv", type=pathlib.Path, help="default benchmarks/learning/ENV.csv")
    parser.add_argument(
        "--checkpoints", type=pathlib.Path, help="folder for the states of runs (default: none)"
    )
    args = parser.parse_args()
    preset, budget = presets.ENVIRONMENTS[args.env]
    args.preset = args.preset or preset.__name__
    if args.env_steps is None:
        args.env_steps = budget
    if args.preset in learning_peers.PEERS:
        refusal = learning_peers.refusal(args.env, args.preset, args.checkpoints)
        if refusal:
            parser.error(refusal)
    args.csv = args.csv or FOLDER / f"{args.env.replace('/', '-')}.csv"
    return args


def main():
    args = arguments()
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    if not args.csv.exists():
        append(args.csv, [COLUMNS], "x")
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    runs = [(args.env, args.preset, args.env_steps, seed) for seed in seeds]
    returns = final_returns(args.csv)
    missing = [run for run in runs if run not in returns]
    if args.seeds == 1:
        for run in missing:
            rows = train(*run, args.checkpoints)
            if run not in final_returns(args.csv):  # another process may have been faster
                append(args.csv, rows)
    else:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda run: run_in_a_process(args, run[-1]), missing))
    returns = final_returns(args.csv)
    for run in runs:
        if run in returns:
            print(f"{args.env} {args.preset} seed {run[-1]}: {returns[run]:.2f}")
    failed = [run[-1] for run in runs if run not in returns]
    if failed:
        sys.exit(f"no final return of the seeds {failed}")


if __name__ == "__main__":
    main()
