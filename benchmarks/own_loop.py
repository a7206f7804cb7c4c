"""Compares environment steps per second of the tutorials' own loop and of Stable-Baselines3's.

The setting is one environment, one update per step, batch 64, MLP 128-128 on CartPole-v1. Our loop
also computes 5-step returns and priorities. TensorFlow uses one thread, as in the example, or its
default number.
"""

import argparse
import pathlib
import sys

import race

HERE = pathlib.Path(__file__).parent
OURS = "own loop"
ONE_THREAD_TF = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def contenders(peers_python):
    ours = "contenders/own_loop_keras_dqn.py"
    sb3 = "contenders/end_to_end_sb3.py"
    one, two = ["--units", "128", "--threads", "1"], ["--units", "128", "--threads", "2"]
    return [
        race.Contender(OURS, sys.executable, ours, env=ONE_THREAD_TF),
        race.Contender(f"{OURS}, TensorFlow's own threads", sys.executable, ours),
        race.Contender("SB3, two threads", peers_python, sb3, two),
        race.Contender("SB3, one thread", peers_python, sb3, one, {"OMP_NUM_THREADS": "1"}),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="default 8")
    parser.add_argument("--env-steps", type=int, default=1_000, help="a round (default 1000)")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter with the peers")
    parser.add_argument("--csv", type=pathlib.Path, default=HERE / "own_loop.csv")
    args = parser.parse_args()
    racers = contenders(args.peers_python)
    try:
        rates = race.race(racers, args.rounds, {"count": args.env_steps})
    finally:
        for racer in racers:
            racer.close()
    race.write_csv(args.csv, race.table(rates, OURS))


if __name__ == "__main__":
    main()
