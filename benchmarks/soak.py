"""Trains for a long time and looks for leaks: memory and speed over a million updates.

CartPole, prioritized replay, an evaluation and a checkpoint after each 10,000 updates. A row of the
CSV is an epoch: updates, seconds of the epoch, resident memory in MB, files in the folder of the
checkpoints. A second call continues the run from its checkpoint.
"""

import argparse
import csv
import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gymnasium as gym
import keras

import keras_dqn

HERE = pathlib.Path(__file__).parent
EPOCH = 10_000


class Rows(keras.callbacks.Callback):
    """Appends a row after each epoch."""

    def __init__(self, path, directory):
        super().__init__()
        self.path, self.directory = path, pathlib.Path(directory)

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.begin
        files = len(list(self.directory.iterdir()))
        with open(self.path, "a", newline="") as file:
            row = [(epoch + 1) * EPOCH, f"{seconds:.3f}", f"{resident():.1f}", files]
            csv.writer(file).writerow([*row, f"{logs['val_return']:.1f}"])


def resident():
    """The memory of this process, in MB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def summary(path):
    with open(path, newline="") as file:
        rows = [[float(value) for value in row] for row in csv.reader(file)]
    tenth = max(1, len(rows) // 10)
    early, late = rows[tenth : 2 * tenth], rows[-tenth:]
    for column, unit in ((1, "s an epoch"), (2, "MB")):
        before, after = (statistics.median(row[column] for row in part) for part in (early, late))
        print(
            f"second tenth {before:.2f} {unit}, last tenth {after:.2f}: {after / before:.3f} times"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=1_000_000)
    parser.add_argument("--directory", default="soak_checkpoints", help="of the checkpoints")
    args = parser.parse_args()
    path = HERE / "soak.csv"
    keras.utils.set_random_seed(0)
    env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    agent = keras_dqn.DQN(keras_dqn.networks.mlp(env.single_observation_space, 2), double=True)
    decay = keras.optimizers.schedules.PolynomialDecay(1e-3, args.updates, 0.0)
    agent.compile(keras.optimizers.Adam(decay, clipnorm=10.0), steps_per_execution=50)
    replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, capacity=100_000, seed=0)
    exploration = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000))
    test_env = gym.make_vec("CartPole-v1", num_envs=5, vectorization_mode="sync")
    agent.fit(
        replay.dataset(batch_size=64, n_step=5),
        epochs=args.updates // EPOCH,
        steps_per_epoch=EPOCH,
        callbacks=[
            keras_dqn.CollectTransitions(env, replay, exploration=exploration, seed=0),
            keras_dqn.SoftTargetUpdate(tau=0.005),
            keras_dqn.EvaluatePolicy(test_env, episodes=5, seed=1),
            keras_dqn.TrainingCheckpoint(args.directory),
            Rows(path, args.directory),
        ],
        verbose=0,
    )
    summary(path)


if __name__ == "__main__":
    main()
