"""Steps whose entries all follow from one number, so that each stored transition can be checked.

Run as a program, it kills processes that add such steps to a buffer in files, and prints what it
finds. It imports no Keras, so that each kill takes little time.
"""

import importlib.util
import itertools
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import types

import gymnasium as gym
import numpy as np

if __name__ == "__main__":  # a package without what `keras_dqn/__init__.py` imports
    package = types.ModuleType("keras_dqn")
    package.__path__ = importlib.util.find_spec("keras_dqn").submodule_search_locations
    sys.modules["keras_dqn"] = package

from keras_dqn.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from keras_dqn.replay.replay_buffer import ReplayBuffer

NUM_ACTIONS = 5
GAMMA = 0.5
ROWS = 24  # of each environment
VARIANTS = {
    f"{kind}, E={num_envs}, frame_stack={frame_stack}": (cls, kwargs, num_envs, frame_stack)
    for kind, (cls, kwargs) in {
        "uniform": (ReplayBuffer, {}),
        "proportional": (PrioritizedReplayBuffer, {"beta": 0.0}),
        "rank": (PrioritizedReplayBuffer, {"beta": 0.0, "alpha": 0.1, "variant": "rank"}),
    }.items()
    for num_envs in (1, 2)
    for frame_stack in (None, 3)
}


def make(variant, rows=ROWS, **storage):
    """Returns an empty buffer of a variant."""
    cls, kwargs, num_envs, frame_stack = VARIANTS[variant]
    shape = (2,) if frame_stack is None else (frame_stack, 2)
    space = gym.spaces.Box(-np.inf, np.inf, shape, np.float64)
    kwargs = {**kwargs, "num_envs": num_envs, "frame_stack": frame_stack, **storage}
    return cls(rows * num_envs, space, gym.spaces.Discrete(NUM_ACTIONS), seed=0, **kwargs)


def is_terminated(number):
    return number % 7 == 6


def is_truncated(number):
    return number % 11 == 10


def is_cut(number):
    """Whether other code resets the environment after the step, without an end."""
    return number % 17 == 8


class Numbered:
    """Adds steps. Numbers of environment e are e modulo E; each step and each reset takes one."""

    def __init__(self, replay, start=0):
        self.replay = replay
        self.num_envs = replay.num_envs
        self.ticks = [start] * self.num_envs
        self.first = [start] * self.num_envs

    def observation(self, env, tick):
        depth = self.replay.frame_stack or 1
        ticks = np.maximum(np.arange(tick - depth + 1, tick + 1), self.first[env])
        frames = np.repeat(ticks[:, None] * self.num_envs + env, 2, axis=1).astype(np.float64)
        return frames if self.replay.frame_stack else frames[0]

    def add(self):
        """Adds one step of all environments; returns their numbers."""
        environments = range(self.num_envs)
        ticks = list(self.ticks)
        numbers = np.array([tick * self.num_envs + e for e, tick in enumerate(ticks)])
        before = np.stack([self.observation(e, ticks[e]) for e in environments])
        after = np.stack([self.observation(e, ticks[e] + 1) for e in environments])
        for e, number in enumerate(numbers.tolist()):
            ended = is_terminated(number) or is_truncated(number) or is_cut(number)
            self.ticks[e] += 2 if ended else 1
            if ended:
                self.first[e] = self.ticks[e]
        self.replay.add(
            before,
            numbers % NUM_ACTIONS,
            numbers.astype(np.float64),
            is_terminated(numbers),
            is_truncated(numbers),
            after,
        )
        return numbers.tolist()


def wrong(replay, n_steps=(1, 3), draws=1_500):
    """Draws all transitions; returns a text for each that no step was, and for a wrong length."""
    faults, found = [], set()
    for n_step in n_steps:
        try:
            batch = replay.sample(draws, gamma=GAMMA, n_step=n_step)
        except RuntimeError:
            continue  # few rows are left of a small ring
        faults += _wrong_columns(replay, batch, n_step)
        if n_step == 1:
            found = set(newest(replay, batch[0])[:, 0].tolist())
    without_stack = ((replay.frame_stack or 1) - 1) * replay.num_envs
    if not len(replay) - without_stack <= len(found) <= len(replay):
        faults.append(f"{len(found)} transitions were drawn, len is {len(replay)}")
    return faults


def drawn(replay, draws=1_500):
    """Returns the numbers of all transitions."""
    return set(newest(replay, replay.sample(draws)[0])[:, 0].tolist())


def newest(replay, observation):
    return observation[:, -1] if replay.frame_stack else observation


def _wrong_columns(replay, batch, n_step):
    observation, transition, _ = batch
    length = observation[0].size
    columns = [observation.reshape(-1, length), transition["next_observation"].reshape(-1, length)]
    columns += [transition[name][:, None] for name in ("action", "reward", "discount")]
    for row in np.unique(np.concatenate(columns, axis=1, dtype=np.float64), axis=0):
        before, after = row[: 2 * length].reshape(2, *observation.shape[1:])
        number = int(newest(replay, before[None])[0, 0])
        numbers = _window(number, replay.num_envs, n_step)
        expected = [
            number % NUM_ACTIONS,
            sum(GAMMA**k * n for k, n in enumerate(numbers)),
            0.0 if is_terminated(numbers[-1]) else GAMMA ** len(numbers),
        ]
        follows = newest(replay, after[None])[0, 0] == numbers[-1] + replay.num_envs
        whole = _is_whole(replay, before) and _is_whole(replay, after)
        if row[2 * length :].tolist() != expected or not follows or not whole:
            yield f"n={n_step}: {row.tolist()}"


def _window(number, num_envs, n_step):
    numbers = [number]
    while len(numbers) < n_step:
        last = numbers[-1]
        if is_terminated(last) or is_truncated(last) or is_cut(last):
            break
        numbers.append(last + num_envs)
    return numbers


def _is_whole(replay, observation):
    """Returns whether all entries and frames belong together; the first frame may be repeated."""
    frames = observation if replay.frame_stack else observation[None]
    steps = np.diff(frames[:, 0])
    moves = np.flatnonzero(steps)
    starts = moves[0] if len(moves) else len(steps)
    return (frames[:, 0] == frames[:, 1]).all() and (steps[starts:] == replay.num_envs).all()


# Kills


def add_for_ever(variant, directory, ready):
    replay = make(variant, storage="memmap", directory=directory)
    numbered = Numbered(replay)
    for count in itertools.count():
        numbered.add()
        if count == 3 * ROWS:
            replay.sample(4)
            replay.flush()
            os.write(ready, b"1")


def faults_of_a_kill(variant, directory, seconds):
    ours, its = os.pipe()
    child = os.fork()
    if not child:
        try:
            add_for_ever(variant, directory, its)
        finally:
            os._exit(1)
    os.read(ours, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ours)
    os.close(its)
    replay = VARIANTS[variant][0].load(directory)
    faults = wrong(replay)
    numbered = Numbered(replay, start=10**6)
    for _ in range(2 * ROWS):
        numbered.add()
    return faults + wrong(replay)


def main(variant, kills):
    rng = np.random.default_rng(0)
    faults = []
    for kill in range(kills):
        directory = pathlib.Path(tempfile.mkdtemp())
        try:
            found = faults_of_a_kill(variant, directory, rng.uniform(0.0, 0.02))
        finally:
            shutil.rmtree(directory)
        faults += [f"kill {kill}: {fault}" for fault in found[:3]]
    print(json.dumps(faults))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
