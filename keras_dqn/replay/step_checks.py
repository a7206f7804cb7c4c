"""What `ReplayBuffer.add` asks of actions, rewards and ends: `[E]` in, Python numbers out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_REWARD = float(np.finfo(np.float32).max)
_BOOLEAN, _INTEGER, _NUMBER = "b", "biu", "biuf"  # kinds of NumPy dtypes
_KIND_NAMES = {_BOOLEAN: "boolean", _INTEGER: "integer", _NUMBER: "a real number"}


class StepChecks:
    """Turns the arrays of a step into lists of E Python numbers, the fastest to handle one by one.

    Args:
        action_space: `gymnasium.spaces.Discrete`.
        num_envs: Int, E.
    """

    def __init__(self, action_space: Any, num_envs: int) -> None:
        self._action_space = action_space
        self._first_action, self._num_actions = int(action_space.start), int(action_space.n)
        self._num_envs = num_envs

    def actions(self, action: Any) -> list[int]:
        """Returns the 0-based actions."""
        first = self._first_action
        actions = [a - first for a in self._numbers("action", action, _INTEGER)]
        if min(actions) < 0 or max(actions) >= self._num_actions:
            raise ValueError(f"`action` must be in {self._action_space}. Received: action={action}")
        return actions

    def rewards(self, reward: Any) -> list[float]:
        """Returns the rewards, all finite in float32."""
        rewards = self._numbers("reward", reward, _NUMBER)
        if not all(abs(r) <= _LARGEST_REWARD for r in rewards):  # NaN is not
            raise ValueError(f"`reward` must be finite in float32. Received: reward={reward}")
        return rewards

    def booleans(self, argument: str, value: Any) -> list[bool]:
        """Returns what is boolean."""
        return self._numbers(argument, value, _BOOLEAN)

    def stacks(self, before: NDArray, after: NDArray, stepped: list[bool] | None) -> None:
        """Checks that stacks of frames `[E, k, ...]` follow each other where a step was taken."""
        follows = before[:, 1:] == after[:, :-1]
        if follows.all():
            return
        broken = ~follows.reshape(self._num_envs, -1).all(axis=1)
        if stepped is not None:
            broken &= stepped
        if broken.any():
            raise ValueError(
                "`next_observation` must hold the frames of `observation`, one place further, and "
                "a new one at its end: with `frame_stack` each frame is stored once. Received "
                f"other frames in the environments {np.flatnonzero(broken).tolist()}"
            )

    def _numbers(self, argument: str, value: Any, kinds: str) -> list:
        array = np.asarray(value)
        if array.shape != (self._num_envs,):
            raise ValueError(
                f"`{argument}` must have shape ({self._num_envs},), one entry an environment. "
                f"Received: shape={array.shape}"
            )
        if array.dtype.kind not in kinds:
            raise ValueError(
                f"`{argument}` must be {_KIND_NAMES[kinds]}. Received: dtype={array.dtype}, "
                f"{argument}={value}"
            )
        return array.tolist()


def check_sizes(capacity: int, num_envs: int, frame_stack: int | None, space: Any) -> None:
    """Raises a `ValueError` if a size of a buffer is outside its range."""
    if num_envs < 1:
        raise ValueError(f"`num_envs` must be at least 1. Received: {num_envs=}")
    if capacity < num_envs * (frame_stack or 1):
        raise ValueError(
            "`capacity` must hold at least an observation for each environment. Received: "
            f"{capacity=}, {num_envs=}, {frame_stack=}"
        )
    if frame_stack is not None and (not space.shape or space.shape[0] != frame_stack):
        raise ValueError(
            "`frame_stack` must be the first axis of a Box of stacked frames, as "
            f"`FrameStackObservation` makes them. Received: {frame_stack=}, "
            f"observation_space={space}"
        )
