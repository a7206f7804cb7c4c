"""Measures how reliably the quick start learns: its own settings, many seeds, greedy returns.

Each seed runs in one process and writes one row when it ends. Rows that already exist are kept and
not run again. The last table gives the mean with its 95% bootstrap interval over the seeds, and how
many seeds solve the environment.
"""

import argparse
import concurrent.futures
import csv
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).parent
SCRIPTS = {"CartPole-v1": HERE.parent / "examples" / "cartpole.py"}
SOLVED = {"CartPole-v1": 475.0}
COLUMNS = ["env", "env_steps", "seed", "return", "seconds"]


def run(env, env_steps, seed):
    command = [sys.executable, SCRIPTS[env], "--seed", str(seed), "--env-steps", str(env_steps)]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        one_core = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        output = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **one_core, "MPLBACKEND": "Agg"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    word, value = output.strip().splitlines()[-1].split()
    assert word == "return", output
    return [env, env_steps, seed, float(value), round(time.perf_counter() - start, 1)]


def bootstrap_interval(values, samples=10_000):
    draws = np.random.default_rng(0).choice(values, size=(samples, len(values)))
    return np.percentile(draws.mean(axis=1), [2.5, 97.5])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", choices=SCRIPTS, default="CartPole-v1")
    parser.add_argument("--seeds", type=int, default=20, help="seeds 0 to SEEDS - 1 (default 20)")
    parser.add_argument("--env-steps", type=int, default=50_000, help="of each (default 50000)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (default 2)")
    parser.add_argument("--csv", type=pathlib.Path, help="default benchmarks/learning-ENV.csv")
    args = parser.parse_args()
    path = args.csv or HERE / f"learning-{args.env}.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    wanted = [(args.env, str(args.env_steps), str(seed)) for seed in range(args.seeds)]
    done = {(row["env"], row["env_steps"], row["seed"]): row for row in rows}
    if not rows:
        path.write_text(",".join(COLUMNS) + "\n")
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        missing = [(env, int(steps), int(seed)) for env, steps, seed in wanted
                   if (env, steps, seed) not in done]  # fmt: skip
        for row in pool.map(lambda job: run(*job), missing):
            with path.open("a", newline="") as file:
                csv.writer(file).writerow(row)
            done[tuple(map(str, row[:3]))] = dict(zip(COLUMNS, map(str, row), strict=True))
            print(f"seed {row[2]:>3}  return {row[3]:6.1f}  {row[4]:.0f} s", flush=True)
    returns = np.array([float(done[job]["return"]) for job in wanted])
    low, high = bootstrap_interval(returns)
    solved = SOLVED[args.env]
    print(f"{args.env}, {args.env_steps} environment steps, {len(returns)} seeds")
    print(f"mean return {returns.mean():.1f} (95% interval {low:.1f} to {high:.1f})")
    print(f"seeds with a return of at least {solved:g}: {(returns >= solved).sum()}")


if __name__ == "__main__":
    main()
