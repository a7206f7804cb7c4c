"""Measures environment steps per second on CartPole-v1, collecting and learning together.

The setting is one update per environment step, batch 64, MLP 64-64, a blended target, and 1, 8 and
64 environments. Start-up (imports and the first compilation) is reported separately.
"""

import argparse
import pathlib
import sys

import race

HERE = pathlib.Path(__file__).parent
CONTENDERS = pathlib.Path("contenders")
OURS = "keras_dqn"
# One thread for so small a network, as in learner.py.
ONE_THREAD_TF = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
ONE_THREAD_TORCH = {"OMP_NUM_THREADS": "1"}
ONE_THREAD_JAX = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


def contenders(envs, peers_python):
    ours = CONTENDERS / "end_to_end_keras_dqn.py"
    sb3 = CONTENDERS / "end_to_end_sb3.py"
    cases = [
        (OURS, sys.executable, ours, [], ONE_THREAD_TF),
        (f"{OURS}, K=256", sys.executable, ours, ["--updates", "256"], ONE_THREAD_TF),
        (f"{OURS} in turn", sys.executable, ours, ["--in-turn"], ONE_THREAD_TF),
        (f"{OURS} without LiteRT", sys.executable, ours, ["--without-litert"], ONE_THREAD_TF),
        ("SB3", peers_python, sb3, [], ONE_THREAD_TORCH),
        ("SBX", peers_python, sb3, ["--library", "sbx"], ONE_THREAD_JAX),
        ("CleanRL style", peers_python, CONTENDERS / "end_to_end_cleanrl_jax.py", [],
         ONE_THREAD_JAX),
        ("purejaxrl kind", peers_python, CONTENDERS / "end_to_end_purejaxrl.py", [],
         ONE_THREAD_JAX),
    ]  # fmt: skip
    if envs > 1:
        array = (f"{OURS}, CartPole as arrays", sys.executable, ours, ["--vectorized"])
        cases.insert(1, (*array, ONE_THREAD_TF))
    return [
        race.Contender(name, python, script, ["--envs", str(envs), *args], env)
        for name, python, script, args, env in cases
    ]


NOTES = {
    OURS: "K=64, overlap=True; gym.make, or gym.make_vec with sync",
    f"{OURS}, K=256": "overlap=True",
    f"{OURS} in turn": "K=64, overlap=False, the default",
    f"{OURS} without LiteRT": "as without the extra `fast`",
    f"{OURS}, CartPole as arrays": "gym.make_vec with vector_entry_point, next-step autoreset",
    "SB3": "not double; one blend a vector step",
    "SBX": "not double",
    "CleanRL style": "act, sample and update one by one",
    "purejaxrl kind": "environment, buffer and learner compiled: the upper anchor",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 8, 64], help="default 1 8 64")
    parser.add_argument("--rounds", type=int, default=10, help="default 10")
    parser.add_argument("--env-steps", type=int, default=6_400, help="a round (default 6400)")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter with the peers")
    parser.add_argument("--csv", type=pathlib.Path, default=HERE / "end_to_end.csv")
    args = parser.parse_args()
    rows = []
    for envs in args.envs:
        racers = contenders(envs, args.peers_python)
        try:
            rates = race.race(racers, args.rounds, {"count": args.env_steps})
        finally:
            for racer in racers:
                racer.close()
        notes = {racer.name: racer.error or NOTES[racer.name] for racer in racers}
        startup = {racer.name: racer.startup_seconds for racer in racers}
        print(f"\n{envs} environments, environment steps per second")
        for row in race.table(rates, OURS, notes):
            rows.append({"envs": envs, **row, "startup_seconds": startup[row["name"]]})
        print("start-up, seconds:", startup)
    race.write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
