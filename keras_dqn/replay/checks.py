"""Checks the arguments of a replay buffer. The first axis of a step's arrays is `[E]`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.arguments import check_below, check_integer, check_number
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.observation_spec import ObservationSpec, add_axis

_LARGEST_REWARD = float(np.finfo(np.float32).max)
_BOOLEAN, _INTEGER, _NUMBER = "b", "biu", "biuf"  # kinds of NumPy dtypes
_KIND_NAMES = {_BOOLEAN: "boolean", _INTEGER: "integer", _NUMBER: "a real number"}


class StepChecks:
    """Refuses steps that do not fit the spaces.

    Args:
        observation_spec: `ObservationSpec` of one environment's observations.
        action_spec: `ActionSpec`.
        num_envs: Int, environments, E.
    """

    def __init__(
        self,
        observation_spec: ObservationSpec,
        action_spec: ActionSpec,
        num_envs: int,
    ) -> None:
        self._observation_spec = observation_spec
        self._action_spec = action_spec
        self._num_envs = num_envs
        self._stacked = [i for i, leaf in enumerate(observation_spec.leaves) if leaf.is_stack]

    def step(
        self,
        observation: Any,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        next_observation: Any,
        where: Any,
    ) -> tuple:
        """Checks the arguments of `ReplayBuffer.add` and returns them.

        Returned observations are lists with one `[E, ...]` array per leaf. The others are lists of
        E Python numbers, which are fastest one by one. Actions are 0-based; `where` may be None.

        Raises:
            ValueError: As `ReplayBuffer.add` says.
        """
        reward = np.asarray(reward)
        if self._num_envs == 1 and reward.ndim == 0:
            observation, next_observation = add_axis(observation), add_axis(next_observation)
            action, reward, terminated, truncated = [action], [reward], [terminated], [truncated]
        rewards = self._rewards(reward)  # first: its shape shows whether there is an axis [E]
        check = self._observation_spec.check
        observations = check("observation", observation, self._num_envs)
        actions = self._actions(action)
        terminated = self._booleans("terminated", terminated)
        truncated = self._booleans("truncated", truncated)
        next_observations = self._observation_spec.check(
            "next_observation", next_observation, self._num_envs
        )
        stepped = None if where is None else self._booleans("where", where)
        for i in self._stacked:
            self._stacks(observations[i], next_observations[i], stepped)
        return observations, actions, rewards, terminated, truncated, next_observations, stepped

    def episode(
        self, observations: list[NDArray], actions: Any, rewards: Any
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Checks the steps of an episode as those of E environments; E is their number.

        Args:
            observations: One `[E + 1, ...]` array per leaf, checked before.
            actions: As in `ReplayBuffer.add_episode`.
            rewards: As there.

        Returns:
            The 0-based actions and the rewards, `[E]` (or `[E, D]`).
        """
        for i in self._stacked:
            self._stacks(observations[i][:-1], observations[i][1:], None)
        numbers = np.array(self._actions(actions, "actions"), np.int32)
        return numbers, np.array(self._rewards(rewards, "rewards"), np.float32)

    def _actions(self, action: Any, argument: str = "action") -> list:
        """Returns the 0-based actions, E ints or E lists of D ints."""
        numbers = self._numbers(argument, action, _INTEGER, self._action_spec.shape)
        return self._action_spec.from_env(numbers, argument)

    def _rewards(self, reward: Any, argument: str = "reward") -> list[float]:
        """Returns the rewards, all finite in float32."""
        rewards = self._numbers(argument, reward, _NUMBER)
        if not all(abs(r) <= _LARGEST_REWARD for r in rewards):  # False for NaN
            received = f"{argument}={reward}"
            raise ValueError(f"`{argument}` must be finite in float32. Received: {received}")
        return rewards

    def _booleans(self, argument: str, value: Any) -> list[bool]:
        """Returns E booleans."""
        return self._numbers(argument, value, _BOOLEAN)

    def _stacks(self, before: NDArray, after: NDArray, stepped: list[bool] | None) -> None:
        """Checks that stacks of frames `[E, k, ...]` follow each other where a step was taken."""
        follows = before[:, 1:] == after[:, :-1]
        if follows.all():
            return
        broken = ~follows.reshape(self._num_envs, -1).all(axis=1)
        if stepped is not None:
            broken &= stepped
        if broken.any():
            raise ValueError(
                "`next_observation` must hold the frames of `observation`, moved by one place, and "
                "a new frame at the end: with `frame_stack` each frame is stored once. Received: "
                f"other frames in the environments (or steps) {np.flatnonzero(broken).tolist()}"
            )

    def _numbers(self, argument: str, value: Any, kinds: str, shape: tuple[int, ...] = ()) -> list:
        array = np.asarray(value)
        if array.shape != (self._num_envs, *shape):
            raise ValueError(
                f"`{argument}` must have shape {(self._num_envs, *shape)}, one entry per "
                f"environment (or step). Received: shape={array.shape}"
            )
        if array.dtype.kind not in kinds:
            raise ValueError(
                f"`{argument}` must be {_KIND_NAMES[kinds]}. Received: dtype={array.dtype}, "
                f"{argument}={value}"
            )
        return array.tolist()


def check_sizes(
    capacity: int, num_envs: int, frame_stack: int | None
) -> tuple[int, int, int | None]:
    """Checks the sizes of a buffer and returns them as ints."""
    capacity = check_integer("capacity", capacity, None)
    num_envs = check_integer("num_envs", num_envs)
    if frame_stack is not None:
        frame_stack = check_integer("frame_stack", frame_stack, None)
    if capacity < num_envs * (frame_stack or 1):
        raise ValueError(
            "`capacity` must hold at least one observation for each environment. Received: "
            f"{capacity=}, {num_envs=}, {frame_stack=}"
        )
    return capacity, num_envs, frame_stack


def check_sampling(
    batch_size: int, gamma: float, n_step: int, num_batches: int | None = None
) -> None:
    """Raises a `TypeError` or `ValueError` if `sample` or `dataset` cannot take an argument."""
    check_integer("batch_size", batch_size)
    check_number("gamma", gamma, 0.0, 1.0)
    check_integer("n_step", n_step)
    if num_batches is not None:
        check_integer("num_batches", num_batches)


def check_envs(envs: Any, num_envs: int) -> list[int]:
    """Returns a list of environments as ints, each in [0, `num_envs`)."""
    if not isinstance(envs, (list, tuple)):
        raise TypeError(f"`envs` must be a list of integers. Received: {envs=}")
    return [check_below("envs", env, num_envs) for env in envs]
