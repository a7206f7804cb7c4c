"""What every contender of `learner.py` learns: sizes, settings and the same made-up transitions."""

from typing import NamedTuple

import gymnasium as gym
import numpy as np

LEARNING_RATE = 2.5e-4
GAMMA = 0.99
TAU = 0.005
EPISODE_STEPS = 200


class Task(NamedTuple):
    """Sizes of a task; `hidden` are dense layers, after the Nature convolutions if `is_image`."""

    observation_shape: tuple
    num_actions: int
    hidden: tuple
    batch_size: int
    num_transitions: int
    is_image: bool


TASKS = {
    "mlp64": Task((4,), 2, (64, 64), 64, 10_000, False),
    "mlp256": Task((4,), 2, (256, 256), 256, 10_000, False),
    "cnn": Task((84, 84, 4), 6, (512,), 32, 2_000, True),
}
# Filters, kernel size and strides of Mnih et al., 2015; all layers have ReLU but the last.
CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


def observation_space(task):
    if task.is_image:
        return gym.spaces.Box(0, 255, task.observation_shape, np.uint8)
    return gym.spaces.Box(-np.inf, np.inf, task.observation_shape, np.float32)


def action_space(task):
    return gym.spaces.Discrete(task.num_actions)


def transitions(task):
    """Returns a dict of `[N, ...]`: one stream of steps, each next observation the next row's."""
    rng = np.random.default_rng(0)
    count = task.num_transitions
    shape = (count + 1, *task.observation_shape)
    if task.is_image:
        observations = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        observations = rng.standard_normal(shape).astype(np.float32)
    return {
        "observation": observations[:-1],
        "action": rng.integers(0, task.num_actions, count).astype(np.int32),
        "reward": rng.standard_normal(count).astype(np.float32),
        "terminated": np.arange(1, count + 1) % EPISODE_STEPS == 0,
        "next_observation": observations[1:],
    }


class SpacesOnly(gym.Env):
    """An environment that nobody steps: what constructors that want one get their spaces from."""

    def __init__(self, observation_space, action_space):
        self.observation_space = observation_space
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}
