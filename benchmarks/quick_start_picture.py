"""Draws README's picture of the quick start: `examples/cartpole.py` as it is, several seeds."""

import argparse
import os
import pathlib
import runpy
import sys
import tempfile

import keras_dqn

ROOT = pathlib.Path(__file__).parents[1]


def run(seed):
    """Runs the example in a folder that is thrown away, and returns the history of its `fit`."""
    sys.argv = ["cartpole.py", "--seed", str(seed)]
    here = pathlib.Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return runpy.run_path(str(ROOT / "examples" / "cartpole.py"))["history"]
        finally:
            os.chdir(here)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to SEEDS - 1 (default 5)")
    parser.add_argument("--path", default=ROOT / "docs" / "cartpole.png", help="of the picture")
    args = parser.parse_args()
    histories = [run(seed) for seed in range(args.seeds)]
    keras_dqn.LearningCurve.draw(histories, args.path, goal=475)


if __name__ == "__main__":
    main()
