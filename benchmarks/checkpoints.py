"""Measures what `TrainingCheckpoint` costs with a full buffer: seconds, bytes, and resuming.

Each buffer is full before the first checkpoint. Then each epoch adds 10,000 transitions (1,000 of
the images). `first` and `later` are the seconds of a checkpoint, `resume` those until `fit` has
restored the run, `size` the bytes of the folder relative to those of the buffer in memory.
"""

import argparse
import csv
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gymnasium as gym
import keras
import numpy as np

import keras_dqn

HERE = pathlib.Path(__file__).parent
COLUMNS = ["buffer", "memory (MB)", "first (s)", "later (s)", "slowest (s)", "resume (s)", "size"]


class Images(gym.Env):
    """Frames of random pixels, in the shape of a game of Atari."""

    observation_space = gym.spaces.Box(0, 255, (84, 84), np.uint8)
    action_space = gym.spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._frame(), {}

    def step(self, action):
        self.steps += 1
        return self._frame(), 1.0, self.steps == 1_000, False, {}

    def _frame(self):
        return self.np_random.integers(0, 255, (84, 84), np.uint8)


class Timed(keras_dqn.TrainingCheckpoint):
    """Notes how long each checkpoint takes."""

    def __init__(self, directory):
        super().__init__(directory)
        self.seconds = []

    def on_epoch_end(self, epoch, logs=None):
        begin = time.perf_counter()
        super().on_epoch_end(epoch, logs)
        self.seconds.append(time.perf_counter() - begin)


class Begin(keras.callbacks.Callback):
    """Notes when training begins."""

    def on_train_begin(self, logs=None):
        self.at = time.perf_counter()


def cartpole():
    return gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")


def images():
    return gym.wrappers.FrameStackObservation(Images(), 4)


BUFFERS = {
    "1,000,000 transitions of CartPole, uniform": (cartpole, 1_000_000, {}, 10_000),
    "1,000,000 transitions of CartPole, prioritized": (cartpole, 1_000_000, {"alpha": 0.6}, 10_000),
    "100,000 frames of 84 x 84": (images, 100_000, {"frame_stack": 4}, 1_000),
}


def filled(env, capacity, options):
    """Returns a full buffer; its rows are written directly, because that is fast."""
    prioritized = "alpha" in options
    kind = keras_dqn.PrioritizedReplayBuffer if prioritized else keras_dqn.ReplayBuffer
    replay = kind.from_env(env, capacity, seed=0, **options)
    rng = np.random.default_rng(0)
    for name, array in replay.row_arrays().items():
        if name.startswith("observation"):
            array[:] = rng.integers(0, 255, array.shape).astype(array.dtype)
        elif name != "flags":
            array[:] = rng.integers(0, 2, array.shape)
    state = replay.get_state(rows=False)
    heads = [capacity // replay.num_envs + 1_000] * replay.num_envs
    replay.set_state({**state, "heads": heads})
    return replay


def fit(name, directory, epochs, fill):
    make_env, capacity, options, steps = BUFFERS[name]
    keras.utils.set_random_seed(0)
    env = make_env()
    shape = env.observation_space.shape if name.startswith("100") else (4,)
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(2)]
    if len(shape) == 3:  # a small network: this measures buffers
        pooling = keras.layers.AveragePooling2D(8, data_format="channels_first")
        layers = [pooling, keras.layers.Flatten(), layers[0], keras.layers.Dense(6)]
    agent = keras_dqn.DQN(keras.Sequential([keras.Input(shape), *layers]))
    agent.compile(steps_per_execution=50)
    kind = keras_dqn.PrioritizedReplayBuffer if "alpha" in options else keras_dqn.ReplayBuffer
    replay = filled(env, capacity, options) if fill else kind.from_env(env, capacity, **options)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(1.0),
        env_steps_per_update=steps / 100,
        warmup_steps=0,
        seed=0,
    )
    timed, begin, start = Timed(directory), Begin(), time.perf_counter()
    agent.fit(
        replay.dataset(32),
        epochs=epochs,
        steps_per_epoch=100,
        callbacks=[timed, collect, keras_dqn.SoftTargetUpdate(), begin],
        verbose=0,
    )
    return timed.seconds, begin.at - start, replay.nbytes


def measured(name, epochs):
    with tempfile.TemporaryDirectory(dir=pathlib.Path.cwd()) as directory:
        seconds, _, nbytes = fit(name, directory, epochs, fill=True)
        _, resume, _ = fit(name, directory, epochs, fill=False)
        size = sum(path.stat().st_size for path in pathlib.Path(directory).iterdir())
    later = statistics.median(seconds[1:])
    numbers = [nbytes / 1e6, seconds[0], later, max(seconds[1:]), resume, size / nbytes]
    return [name, *(f"{number:.3g}" for number in numbers)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="checkpoints per buffer")
    args = parser.parse_args()
    rows = []
    for name in BUFFERS:
        rows.append(measured(name, args.epochs))
        print(*rows[-1], sep=", ", flush=True)
    with open(HERE / "checkpoints.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
