"""Measures updates per second of the learner alone: batch, TD update, Adam, blend of the target.

Each contender runs in a separate process, gets the same made-up transitions and does the same
arithmetic, double Q-learning with the Huber loss. If a library does less or more, its line says so.
The contenders take turns (see race.py), and each ratio compares rates of the same round. No
environment is stepped here: end_to_end.py does that.

The peers (other libraries) need a separate environment. One command makes it:

    python -m venv .peers && .peers/bin/pip install torch==2.13.0 && \
        .peers/bin/pip install -r benchmarks/peers.txt

    python benchmarks/learner.py --task mlp64 --peers-python .peers/bin/python

TF-Agents runs on Keras 2 and needs another one:

    python -m venv .tf-agents && .tf-agents/bin/pip install tf-agents tf-keras tensorboard gymnasium

    python benchmarks/learner.py --task mlp64 --peers-python .peers/bin/python \
        --tf-agents-python .tf-agents/bin/python

Without its interpreter a peer does not take part, and the table says so.
"""

import argparse
import pathlib
import sys
from typing import NamedTuple

from race import Contender, race, table, write_csv

HERE = pathlib.Path(__file__).parent
BASELINE = "ours, K=64"

# One thread where it was measured to be faster: an update of a small network is too short, and
# sharing it among threads costs more than it saves. Others use the library's own number.
ONE_THREAD = {
    "tensorflow": {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"},
    "torch": {"OMP_NUM_THREADS": "1"},
    "tf-agents": {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"},
    "jax": {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1"},
}
TASKS = {"mlp64": "4-64-64-2, batch 64", "mlp256": "4-256-256-2, batch 256", "cnn": "Nature CNN"}
# XLA's convolutions inside a loop take seconds per call on a CPU: long scans leave out that task.
MLP = ("mlp64", "mlp256")


class Entry(NamedTuple):
    """A line of the table; `library` names its backend, which also sets its threads."""

    name: str
    library: str
    script: str
    args: tuple
    note: str = ""
    tasks: tuple = ("mlp64", "mlp256", "cnn")
    one_thread: tuple = ("mlp64",)


ENTRIES = [
    *(Entry(f"ours, K={k}", "tensorflow", "learner_ours.py", (k,)) for k in (1, 8, 64, 256)),
    Entry("ours, K=64, plain Q", "tensorflow", "learner_ours.py", (64, "plain"), "as SB3 and SBX"),
    Entry("ours, K=64, prioritized", "tensorflow", "learner_ours.py", (64, "prioritized"), "", MLP),
    Entry(
        "ours, K=8, XLA", "tensorflow", "learner_ours.py", (8, "xla"), "jit_compile=True", ("cnn",)
    ),
    Entry("bare compiled loop, K=64", "tensorflow", "learner_bare.py", (64,), "nothing is drawn"),
    Entry("Keras tutorial", "tensorflow", "learner_naive.py", (), "plain Q-learning"),
    Entry("Stable-Baselines3", "torch", "learner_sb3.py", ("sb3", 1), "plain Q, clips gradients"),
    Entry("PyTorch, one file", "torch", "learner_torch.py", ()),
    Entry("SBX, K=1", "jax", "learner_sb3.py", ("sbx", 1), "plain Q"),
    Entry(
        "SBX, K=100",
        "jax",
        "learner_sb3.py",
        ("sbx", 100),
        "plain Q, blends every 100 updates",
        MLP,
    ),
    Entry("TF-Agents", "tf-agents", "learner_tf_agents.py", ()),
    Entry(
        "CleanRL-style JAX",
        "jax",
        "learner_jax.py",
        ("cleanrl",),
        "as there: SB3's buffer, the blend outside the jitted update",
    ),
    Entry("JAX, rows by NumPy", "jax", "learner_jax.py", ("host",), "blends in the jitted update"),
    Entry("JAX, all on device, K=8", "jax", "learner_jax.py", ("device", 8), tasks=("cnn",)),
    Entry("JAX, all on device, K=64", "jax", "learner_jax.py", ("device", 64), tasks=MLP),
    Entry("JAX, all on device, K=256", "jax", "learner_jax.py", ("device", 256), tasks=MLP),
]


def start(entry, task, pythons):
    """Starts a contender; its first updates (before the race) show how many fill a round."""
    contender = Contender(
        entry.name,
        pythons[entry.library],
        HERE / "contenders" / entry.script,
        (task, *entry.args),
        env=ONE_THREAD[entry.library] if task in entry.one_thread else {},
    )
    contender.rate = contender.measure({"count": 1})
    for seconds in (0.2, 0.5):
        if contender.error is None:
            contender.rate = contender.measure({"count": updates_in(seconds, contender.rate)})
    said = contender.error or f"ready after {contender.startup_seconds:.1f} s"
    print(f"{entry.name}: {said}", file=sys.stderr, flush=True)
    return contender


def why_absent(entry, task, pythons):
    if task not in entry.tasks:
        return "left out of this task: see MLP in learner.py"
    if not pythons[entry.library]:
        option = "--tf-agents-python" if entry.library == "tf-agents" else "--peers-python"
        return f"wants {option}"
    return ""


def updates_in(seconds, rate):
    return max(1, round(seconds * rate))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="mlp64")
    parser.add_argument("--peers-python", help="the interpreter of the peers' environment")
    parser.add_argument("--tf-agents-python", help="the interpreter of TF-Agents' environment")
    parser.add_argument("--rounds", type=int, default=10, help="default 10")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each in a round (default 2)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parts of names, to run fewer")
    parser.add_argument("--csv", type=pathlib.Path, help="default benchmarks/learner-TASK.csv")
    args = parser.parse_args()
    entries = [
        entry
        for entry in ENTRIES
        if not args.only or any(part.lower() in entry.name.lower() for part in args.only)
    ]
    if not entries:
        parser.error(f"`--only` must name some of {[entry.name for entry in ENTRIES]}")
    pythons = {
        "tensorflow": sys.executable,
        "tf-agents": args.tf_agents_python,
        "torch": args.peers_python,
        "jax": args.peers_python,
    }
    absent = {
        entry.name: reason for entry in entries if (reason := why_absent(entry, args.task, pythons))
    }
    running = [entry for entry in entries if entry.name not in absent]
    contenders = [start(entry, args.task, pythons) for entry in running]
    try:
        rates = race(
            contenders,
            args.rounds,
            lambda contender: {"count": updates_in(args.seconds, contender.rate)},
        )
    finally:
        for contender in contenders:
            contender.close()
    notes = {entry.name: entry.note for entry in entries}
    notes.update({c.name: f"not installed or failed: {c.error}" for c in contenders if c.error})
    notes.update(absent)
    rates.update({name: [] for name in absent})
    startups = {c.name: c.startup_seconds for c in contenders}

    print(f"updates per second, {TASKS[args.task]}, {args.rounds} rounds of {args.seconds:g} s")
    rows = table(rates, BASELINE, notes)
    rows = [{"task": args.task, "startup_seconds": startups.get(r["name"]), **r} for r in rows]
    write_csv(args.csv or HERE / f"learner-{args.task}.csv", rows)


if __name__ == "__main__":
    main()
