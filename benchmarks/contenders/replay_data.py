"""Transitions for the replay benchmark, the same for all: random, episodes of 200 steps."""

import ctypes
import gc

import numpy as np

CAPACITY = 100_000
EPISODE_STEPS = 200
GAMMA = 0.99
NUM_ACTIONS = 2


class Vectors:
    """Observations of 4 float32."""

    shape, dtype, low, high = (4,), np.float32, -np.inf, np.inf
    memory_capacity = CAPACITY

    def __init__(self, envs):
        self._rows = np.random.default_rng(0).normal(size=(2_048, envs, 4)).astype(np.float32)

    def observation(self, step):
        """Returns `[E, 4]`; the next observation is that of `step + 1`."""
        return self._rows[step % len(self._rows)]


class FramesFirst:
    """Stacks of 4 frames of 84 by 84 uint8, of which two that follow share three."""

    shape, dtype, low, high = (4, 84, 84), np.uint8, 0, 255
    memory_capacity = 50_000  # of which the largest needs 2.8 GB

    def __init__(self, envs):
        frames = np.random.default_rng(0).integers(0, 256, (256, 84, 84), np.uint8)
        self._frames = np.concatenate([frames, frames[:3]])  # the first follows the last
        self._envs = envs

    def observation(self, step):
        """Returns `[E, ...]`; the next observation is that of `step + 1`."""
        first = step % 256
        stack = self.arranged(self._frames[first : first + 4])
        return np.broadcast_to(stack, (self._envs, *self.shape))

    def arranged(self, stack):
        """Returns a stack `[4, 84, 84]` as this data has it."""
        return stack


class Frames(FramesFirst):
    """The same with the frames on the last axis."""

    shape = (84, 84, 4)

    def arranged(self, stack):
        return np.ascontiguousarray(np.moveaxis(stack, 0, -1))


def data_of(kind, envs):
    """Returns the data that a request names."""
    return {"vectors": Vectors, "frames": Frames, "frames_first": FramesFirst}[kind](envs)


def steps(data, envs, first, count):
    """Yields `(observation, action, reward, terminated, next_observation)`, all `[E, ...]`."""
    action, reward = np.arange(envs) % NUM_ACTIONS, np.ones(envs, np.float32)
    for step in range(first, first + count):
        ended = np.full(envs, step % EPISODE_STEPS == EPISODE_STEPS - 1)
        # After an end the next start is another observation: one is skipped.
        at = step + step // EPISODE_STEPS
        yield data.observation(at), action, reward, ended, data.observation(at + 1)


def resident_bytes():
    """Returns the bytes of memory that this process holds (Linux with glibc)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free is not held back for later
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4_096
