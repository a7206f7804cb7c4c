"""Measures how fast `keras_dqn.integrations.minari.load` fills a buffer, and its memory.

Minari itself writes the dataset: a million steps of CartPole's spaces. It has one group in its file
for each episode, so short episodes take longer. Needs `pip install ".[offline]"`.
"""

import argparse
import os
import tempfile
import time
import tracemalloc
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

from keras_dqn.integrations.minari import load


def write(name, num_steps, length):
    """Writes random episodes of one length with Minari alone."""
    rng, ends = np.random.default_rng(0), np.arange(length) == length - 1
    dataset = minari.create_dataset_from_buffers(name, [], env=gym.make("CartPole-v1"))
    for first in range(0, num_steps // length, 1_000):
        count = min(1_000, num_steps // length - first)
        dataset.update_dataset_from_buffer(
            [
                EpisodeBuffer(
                    observations=rng.uniform(-1, 1, (length + 1, 4)).astype(np.float32),
                    actions=rng.integers(0, 2, length),
                    rewards=np.ones(length),
                    terminations=ends,
                    truncations=np.zeros(length, bool),
                )
                for _ in range(count)
            ]
        )
    return dataset


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1_000_000, help="default 1,000,000")
    parser.add_argument("--lengths", type=int, nargs="+", default=[500, 200, 50])
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "`.*` is set to None")  # Minari asks for an author and so on
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        for length in args.lengths:
            dataset = write(f"some/steps-v{length}", args.steps, length)
            seconds = []
            for _ in range(args.rounds):
                start = time.perf_counter()
                replay = load(dataset)
                seconds.append(time.perf_counter() - start)
            tracemalloc.start()
            load(dataset)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            print(
                f"{len(replay):,} steps in episodes of {length}: {np.median(seconds):.1f} s "
                f"({min(seconds):.1f}..{max(seconds):.1f}), {peak / 2**20:.0f} MiB at most, of "
                f"which the buffer has {replay.nbytes / 2**20:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
