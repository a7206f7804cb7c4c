"""Transitions for the replay benchmark, the same for all: random, episodes of 200 steps."""

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


class Frames:
    """Stacks of 4 frames of 84 by 84 uint8, of which two that follow share three."""

    shape, dtype, low, high = (84, 84, 4), np.uint8, 0, 255
    memory_capacity = 5_000  # 100,000 of them would need up to 6 GB

    def __init__(self, envs):
        draws = np.random.default_rng(0).integers(0, 256, (259, 84, 84), np.uint8)
        self._frames = np.ascontiguousarray(np.moveaxis(draws, 0, -1))
        self._envs = envs

    def observation(self, step):
        """Returns `[E, 84, 84, 4]`; the next observation is that of `step + 1`."""
        first = step % 256
        frames = np.ascontiguousarray(self._frames[..., first : first + 4])
        return np.broadcast_to(frames, (self._envs, *self.shape))


def data_of(kind, envs):
    """Returns the data that a request names, `"vectors"` or `"frames"`."""
    return {"vectors": Vectors, "frames": Frames}[kind](envs)


def steps(data, envs, first, count):
    """Yields `(observation, action, reward, terminated, next_observation)`, all `[E, ...]`."""
    action, reward = np.arange(envs) % NUM_ACTIONS, np.ones(envs, np.float32)
    for step in range(first, first + count):
        ended = np.full(envs, step % EPISODE_STEPS == EPISODE_STEPS - 1)
        # After an end the next start is another observation: one is skipped.
        at = step + step // EPISODE_STEPS
        yield data.observation(at), action, reward, ended, data.observation(at + 1)


def resident_bytes():
    """Returns the bytes of memory that this process holds (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4_096
