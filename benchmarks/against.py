"""Compares this checkout with another one (say, an older commit) in turns: rates and their ratio.

    git worktree add ../old COMMIT
    python benchmarks/against.py --old ../old --parts learner-mlp64 learner-mlp256 end replay

Both run in this interpreter, each with its own package and its own contenders. The table gives the
95% interval of the mean ratio (Student's t on logarithms).
"""

import argparse
import math
import pathlib
import statistics
import sys

import race
from scipy import stats

HERE = pathlib.Path(__file__).parent
ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
BOTH_CORES = {"TF_CPP_MIN_LOG_LEVEL": "3"}
LEARNERS = [(1,), (8,), (64,), (256,), (64, "plain"), (64, "prioritized")]
LOOPS = {
    "overlap": [],
    "K=256, overlap": ["--updates", "256"],
    "in turn": ["--in-turn"],
    "without LiteRT": ["--without-litert"],
}
ADDS = [{"operation": "add", "envs": envs} for envs in (1, 8, 64)]
SAMPLES = [
    {"operation": "sample", "envs": 1, "rows": rows, "n_step": n_step}
    for n_step in (1, 3)
    for rows in (64, 4_096)
]
PRIORITIES = [(64, "proportional"), (64, "uniform"), (1, "proportional"), (64, "rank")]


def cases(parts):
    """Yields (name, script, arguments, environment, requests)."""
    for task, env in (("mlp64", ONE_THREAD), ("mlp256", BOTH_CORES)):
        if f"learner-{task}" in parts:
            for args in LEARNERS:
                yield f"learner {task} {args}", "learner_ours.py", (task, *args), env, [{}]
    if "end" in parts:
        for envs in (1, 8, 64):
            for name, args in LOOPS.items():
                args = ("--envs", envs, *args)
                yield f"{envs} envs {name}", "end_to_end_keras_dqn.py", args, ONE_THREAD, [{}]
    if "replay" in parts:
        yield "replay", "replay_keras_dqn.py", (), ONE_THREAD, ADDS + SAMPLES
        feedback = [{"operation": "feedback", "capacity": 100_000}]
        for args in PRIORITIES:
            yield f"priorities {args}", "prioritized_keras_dqn.py", args, ONE_THREAD, feedback


def contender(name, root, script, args, env):
    root = root.resolve()
    env = {**env, "PYTHONPATH": f"{root}/benchmarks:{root}"}
    script = root / "benchmarks" / "contenders" / script
    return race.Contender(name, sys.executable, script, args, env)


def count_of(racers, request, seconds):
    """Returns the amount of work for about this many seconds, after compiling and filling."""
    rates = []
    for racer in racers:
        racer.measure({**request, "count": 100})
        rate = racer.measure({**request, "count": 500})
        rates.append(racer.measure({**request, "count": max(1, round(0.5 * (rate or 1)))}) or 1)
    return max(1, round(seconds * statistics.mean(rates)))


def interval(ratios):
    logs = [math.log(ratio) for ratio in ratios]
    half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return [math.exp(statistics.mean(logs) + sign * half) for sign in (-1, 1)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("learner-mlp64", "learner-mlp256", "end", "replay")
    parser.add_argument("--old", type=pathlib.Path, required=True, help="the other checkout")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of each, at least 2")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a measurement")
    parser.add_argument("--csv", type=pathlib.Path, default=HERE / "against.csv")
    args = parser.parse_args()
    rows = []
    for name, script, arguments, env, requests in cases(args.parts):
        roots = {"old": args.old, "new": HERE.parent}
        racers = [contender(key, root, script, arguments, env) for key, root in roots.items()]
        for request in requests:
            count = count_of(racers, request, args.seconds)
            rates = race.race(racers, args.rounds, {**request, "count": count})
            ratios = [new / old for old, new in zip(rates["old"], rates["new"], strict=True)]
            low, high = interval(ratios)
            case = " ".join([name, *(str(value) for value in request.values())])
            row = {
                "case": case,
                **{key: round(statistics.median(rates[key]), 1) for key in rates},
                "new_over_old": round(statistics.median(ratios), 3),
                "low": round(low, 3),
                "high": round(high, 3),
            }
            print(row, flush=True)
            rows.append(row)
        for racer in racers:
            racer.close()
    race.write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
