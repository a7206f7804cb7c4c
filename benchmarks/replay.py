"""Microseconds to add and to sample, and bytes of a stored transition, at 100,000 rows.

Adding is given for each environment step; a sample is 64 rows or 64 times 64 (what `model.fit`
asks for at 64 updates an execution). Bytes are the growth of the process while the buffer is filled
with episodes of 200 steps, over the transitions it then holds.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import race

HERE = pathlib.Path(__file__).parent
OURS = "keras_dqn"
# SB3 hands out torch tensors, whose copies are too small to share among threads.
ENV = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
CASES = [
    *[{"operation": "add", "envs": envs} for envs in (1, 8, 64)],
    *[{"operation": "sample", "envs": 1, "rows": rows, "n_step": n_step}
      for n_step in (1, 3) for rows in (64, 64 * 64)],
]  # fmt: skip
MEMORY = [
    ("vectors", "4 float32", {OURS: [], "SB3": [], "SB3, optimize_memory_usage":
     ["--optimize-memory"], "cpprb": [], "cpprb, next_of": ["--next-of"]}),
    ("frames", "84x84x4 uint8", {OURS: [], "SB3": [], "SB3, optimize_memory_usage":
     ["--optimize-memory"], "cpprb": [], "cpprb, next_of": ["--next-of"],
     "cpprb, next_of and stack_compress": ["--next-of", "--stack-compress"]}),
]  # fmt: skip


def script_of(name):
    library = name.split(",")[0].lower()
    return pathlib.Path("contenders") / f"replay_{library}.py"


def python_of(name, peers_python):
    return sys.executable if name == OURS else peers_python


def title_of(case):
    if case["operation"] == "add":
        return f"add, {case['envs']} environments, for each environment step"
    return f"sample of {case['rows']} rows, n_step={case['n_step']}"


def race_case(case, racers, rounds, seconds):
    """Returns the rows of one case, each contender asked for about as many seconds of work."""
    # The first request fills the buffer; the second tells how much work takes the time.
    counts = {}
    for racer in racers:
        racer.measure({**case, "count": 100})
        rate = racer.measure({**case, "count": 500})
        counts[racer.name] = max(100, round(seconds * (rate or 0)))
    rates = race.race(racers, rounds, lambda racer: {**case, "count": counts[racer.name]})
    microseconds = {
        name: round(1e6 / statistics.median(of_rounds), 3) if of_rounds else ""
        for name, of_rounds in rates.items()
    }
    notes = {
        racer.name: racer.error or f"{microseconds[racer.name]:.2f} microseconds"
        for racer in racers
    }
    print(f"\n{title_of(case)}")
    return [
        {"case": title_of(case), **row, "microseconds": microseconds[row["name"]]}
        for row in race.table(rates, OURS, notes)
    ]


def bytes_of(name, kind, arguments, peers_python):
    """Returns the bytes of a stored transition, measured in a process of its own, or an error."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    command = [python_of(name, peers_python), HERE / script_of(name), "--memory", kind, *arguments]
    done = subprocess.run(
        command, env={**os.environ, **ENV, "PYTHONPATH": path}, capture_output=True, text=True
    )
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no message"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])["bytes"], ""


def memory_rows(peers_python):
    rows = []
    for kind, title, variants in MEMORY:
        print(f"\nbytes of a stored transition, {title}")
        for name, arguments in variants.items():
            value, error = bytes_of(name, kind, arguments, peers_python)
            print(f"{name:36}", f"{value:12,.1f}" if error == "" else f"not run: {error}")
            rows.append(
                {"case": f"bytes, {title}", "name": name, "bytes": value or "", "note": error}
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="default 10")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a measurement, default 0.3")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter with the peers")
    parser.add_argument("--csv", type=pathlib.Path, default=HERE / "replay.csv")
    parser.add_argument("--memory-csv", type=pathlib.Path, default=HERE / "replay-memory.csv")
    args = parser.parse_args()
    racers = [
        race.Contender(name, python_of(name, args.peers_python), script_of(name), env=ENV)
        for name in (OURS, "SB3", "cpprb")
    ]
    rows = []
    try:
        for case in CASES:
            rows += race_case(case, racers, args.rounds, args.seconds)
    finally:
        for racer in racers:
            racer.close()
    race.write_csv(args.csv, rows)
    race.write_csv(args.memory_csv, memory_rows(args.peers_python))


if __name__ == "__main__":
    main()
