"""Measures microseconds to add and to sample, with and without priorities, and memory use.

Adding is measured per environment step. A sample has 64 rows, or 64 times 64 (as `model.fit` draws
for 64 updates per execution). The buffer holds 100,000 rows.

With priorities, the buffer holds 100,000 or 1,000,000 rows. An update draws 64 rows and feeds their
TD errors back; K is the number of updates that do this at once. At K=64 keras_dqn draws 64 batches,
each with separate strata and weights; the peers draw one batch of 4,096 rows.

Memory use is in bytes per transition: the growth of the process while the buffer is filled with
episodes of 200 steps and sometimes sampled, divided by the number of transitions it then holds.

The docstring of learner.py says how to make the peers' interpreter:

    python benchmarks/replay.py --peers-python .peers/bin/python
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys

import race

HERE = pathlib.Path(__file__).parent
OURS = "keras_dqn"
# SB3 returns torch tensors; copying them is too little work to share among threads.
ENV = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
CASES = [
    *[{"operation": "add", "envs": envs} for envs in (1, 8, 64)],
    *[{"operation": "sample", "envs": 1, "rows": rows, "n_step": n_step}
      for n_step in (1, 3) for rows in (64, 64 * 64)],
]  # fmt: skip
CAPACITIES = (100_000, 1_000_000)
BASELINE, FLOOR = f"{OURS}, K=64", f"{OURS}, uniform, K=64"
RANK = f"{OURS}, rank, K=64"  # at the larger capacity it sorts too seldom for a short measurement
PRIORITIES = {
    BASELINE: (64, "proportional"),
    FLOOR: (64, "uniform"),
    f"{OURS}, K=1": (1, "proportional"),
    RANK: (64, "rank"),
    **{f"{peer}, K={k}": (k,) for peer in ("cpprb", "Tianshou", "flashbax") for k in (1, 64)},
}
MEMORY = [
    ("4 float32", {
        OURS: ["vectors"],
        f"{OURS}, prioritized": ["vectors", "--prioritized"],
        "SB3": ["vectors"],
        "SB3, optimize_memory_usage": ["vectors", "--optimize-memory"],
        "cpprb": ["vectors"],
        "cpprb, next_of": ["vectors", "--next-of"],
        "Tianshou": ["vectors"],
        "Tianshou, ignore_obs_next": ["vectors", "--ignore-obs-next"],
    }),
    ("84x84x4 uint8", {
        OURS: ["frames"],
        f"{OURS}, frame_stack": ["frames_first", "--frame-stack"],
        f"{OURS}, frame_stack, prioritized": ["frames_first", "--frame-stack", "--prioritized"],
        "SB3": ["frames"],
        "SB3, optimize_memory_usage": ["frames", "--optimize-memory"],
        "cpprb": ["frames"],
        "cpprb, next_of": ["frames", "--next-of"],
        "cpprb, next_of and stack_compress": ["frames", "--next-of", "--stack-compress"],
        "Tianshou, ignore_obs_next and save_only_last_obs":
            ["frames_first", "--ignore-obs-next", "--save-only-last-obs"],
    }),
]  # fmt: skip


def script_of(name, kind="replay"):
    library = name.split(",")[0].lower()
    return pathlib.Path("contenders") / f"{kind}_{library}.py"


def python_of(name, peers_python):
    return sys.executable if name.startswith(OURS) else peers_python


def title_of(case):
    if case["operation"] == "add":
        return f"add, {case['envs']} environments, for each environment step"
    if case["operation"] == "feedback":
        return f"prioritized: sample + feedback of 64 rows, capacity {case['capacity']:,}"
    return f"sample of {case['rows']} rows, n_step={case['n_step']}"


def race_case(case, racers, rounds, seconds, baseline=OURS):
    """Returns the rows of one case; each contender works for about the same number of seconds."""
    # The first request fills the buffer; the second shows how much work fills the time.
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
        for row in race.table(rates, baseline, notes)
    ]


def plain_rows(args):
    """Returns the rows of adding and of sampling uniformly."""
    rows = []
    with contextlib.ExitStack() as stack:
        racers = [
            race.Contender(name, python_of(name, args.peers_python), script_of(name), env=ENV)
            for name in (OURS, "SB3", "cpprb")
        ]
        for racer in racers:
            stack.callback(racer.close)
        for case in CASES:
            rows += race_case(case, racers, args.rounds, args.seconds)
    return rows


def priority_rows(args):
    """Returns the rows of sampling by priority and feeding back."""
    rows = []
    with contextlib.ExitStack() as stack:
        racers = []
        for name, arguments in PRIORITIES.items():
            python, script = python_of(name, args.peers_python), script_of(name, "prioritized")
            racers.append(race.Contender(name, python, script, arguments, ENV))
            stack.callback(racers[-1].close)
        for capacity in CAPACITIES:
            case = {"operation": "feedback", "capacity": capacity}
            taking_part = [r for r in racers if r.name != RANK or capacity == CAPACITIES[0]]
            of_case = race_case(case, taking_part, args.rounds, args.seconds, BASELINE)
            ratio = next(row["ratio"] for row in of_case if row["name"] == FLOOR)
            if ratio:
                print(f"{BASELINE} takes {1 / ratio:.2f} times as long as {FLOOR}", flush=True)
            rows += of_case
    return rows


def bytes_of(name, arguments, peers_python):
    """Returns the bytes of a stored transition, measured in a separate process, or an error."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    command = [python_of(name, peers_python), HERE / script_of(name), "--memory", *arguments]
    done = subprocess.run(
        command, env={**os.environ, **ENV, "PYTHONPATH": path}, capture_output=True, text=True
    )
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no message"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])["bytes"], ""


def memory_rows(args):
    """Returns the rows about the memory use of buffers."""
    rows = []
    for title, variants in MEMORY:
        print(f"\nbytes of a stored transition, {title}")
        for name, arguments in variants.items():
            value, error = bytes_of(name, arguments, args.peers_python)
            said = f"{value:12,.1f}" if error == "" else f"not run: {error}"
            print(f"{name:48}", said, flush=True)
            rows.append(
                {"case": f"bytes, {title}", "name": name, "bytes": value or "", "note": error}
            )
    return rows


PARTS = {"plain": plain_rows, "priorities": priority_rows, "memory": memory_rows}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="default 10")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a measurement, default 0.3")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter with the peers")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="fewer parts")
    parser.add_argument("--csv", type=pathlib.Path, default=HERE / "replay.csv")
    parser.add_argument(
        "--priorities-csv", type=pathlib.Path, default=HERE / "replay-priorities.csv"
    )
    parser.add_argument("--memory-csv", type=pathlib.Path, default=HERE / "replay-memory.csv")
    args = parser.parse_args()
    files = {"plain": args.csv, "priorities": args.priorities_csv, "memory": args.memory_csv}
    for part in args.only:
        race.write_csv(files[part], PARTS[part](args))


if __name__ == "__main__":
    main()
