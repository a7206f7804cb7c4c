"""Measures the seconds from the start of Python to the first update, here and in SB3, in parts.

SB3 is Stable-Baselines3. Each round starts each program once, in rotating order.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import race

HERE = pathlib.Path(__file__).parent


def run(python, script):
    env = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "FIRST_UPDATE_STARTED_AT": str(time.time()),
    }
    command = [str(python), str(HERE / "contenders" / script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter with the peers")
    parser.add_argument("--csv", type=pathlib.Path, default=HERE / "first_update.csv")
    args = parser.parse_args()
    contenders = [
        ("keras_dqn", sys.executable, "first_update_keras_dqn.py"),
        ("SB3", args.peers_python, "first_update_sb3.py"),
    ]
    parts = {name: [] for name, *_ in contenders}
    for round_index in range(args.rounds):
        for name, python, script in contenders[:: 1 if round_index % 2 else -1]:
            parts[name].append(run(python, script))
    rows = []
    for name, runs in parts.items():
        print(f"\n{name}, seconds: median (min..max)")
        for part in [*runs[0], "all"]:
            seconds = [sum(run.values()) if part == "all" else run[part] for run in runs]
            low, high, median = min(seconds), max(seconds), statistics.median(seconds)
            print(f"  {part:50} {median:6.2f} ({low:.2f}..{high:.2f})")
            rows.append({"name": name, "part": part, "median": round(median, 3),
                         "min": round(low, 3), "max": round(high, 3)})  # fmt: skip
    race.write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
