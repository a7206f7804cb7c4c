"""Lets `fit` train on TF-Agents' `TFUniformReplayBuffer`, in place of a `ReplayBuffer`.

The first axis of arrays is `[E]`, the environments. `trajectories.py` says what a frame is.
"""

from typing import Any

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_dqn.integrations.trajectories import (
    FIRST,
    INSTALL_COMMAND,
    LAST,
    MID,
    check_holds_trajectories,
    trajectory_spec,
    transitions_from_trajectories,
)
from keras_dqn.replay.checks import StepChecks, check_sampling, check_sizes
from keras_dqn.replay.replay_dataset import ReplayDataset
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.env_spaces import num_envs_of, single_spaces
from keras_dqn.spaces.observation_spec import ObservationSpec

__all__ = ["INSTALL_COMMAND", "TFAgentsReplayBuffer", "transitions_from_trajectories"]


class TFAgentsReplayBuffer:
    """Stores transitions in a TF-Agents `TFUniformReplayBuffer` and draws them for `fit`.

    Use it in place of a `ReplayBuffer`: `CollectTransitions` adds to it, and `fit` trains on its
    `dataset`. The attribute `replay_buffer` is TF-Agents' buffer. Its items are TF-Agents'
    trajectories, so TF-Agents' own drivers, agents and checkpoints can use it. Adding a step takes
    about a hundred times as long as in a `ReplayBuffer`, because it is a TensorFlow call.

    TF-Agents draws any frame. Boundary frames are not transitions. Other transitions of the batch
    take their place. If the batch has only boundary frames, all rows have weight 0. A window ends
    where its episode ends; at a truncation it ends with the real final observation. All
    environments are written together. If one of them needs a boundary frame (in autoreset modes
    other than NEXT_STEP), the others get one too. Their windows of several steps end there, as at a
    truncation.

    Args:
        capacity: Int, frames over all environments, including boundary frames. It must be None if
            `replay_buffer` is given.
        observation_space: As in `ReplayBuffer`.
        action_space: As in `ReplayBuffer`.
        num_envs: Int, environments, E. Defaults to `1`.
        replay_buffer: A `TFUniformReplayBuffer` of trajectories with batch size E, to use instead
            of a new one. Defaults to `None`.

    Raises:
        ImportError: If TF-Agents is not installed.
        ValueError: If both or neither of `capacity` and `replay_buffer` are given, an argument is
            outside its range, or the trajectories of `replay_buffer` do not fit the spaces.
    """

    def __init__(
        self,
        capacity: int | None,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        num_envs: int = 1,
        replay_buffer: Any = None,
    ) -> None:
        action_spec = ActionSpec(action_space)
        if action_spec.shape:
            raise ValueError(
                "`action_space` must be gymnasium.spaces.Discrete: trajectories have one action. "
                f"Received: {action_space=}"
            )
        if (capacity is None) == (replay_buffer is None):
            raise ValueError(
                "Exactly one of `capacity` and `replay_buffer` must be given. Received: "
                f"{capacity=}, {replay_buffer=}"
            )
        self.observation_space = observation_space
        self.action_space = action_space
        self.num_envs = num_envs
        observation_spec = ObservationSpec(observation_space)
        self._pack = observation_spec.pack
        self._checks = StepChecks(observation_spec, action_spec, num_envs)
        spec = trajectory_spec(observation_spec, action_spec)
        if capacity is not None:
            check_sizes(capacity, num_envs, None)
            replay_buffer = _make_replay_buffer(spec, num_envs, capacity // num_envs)
        else:
            check_holds_trajectories(replay_buffer, spec)
        self.replay_buffer = replay_buffer
        self.capacity = int(replay_buffer.capacity)
        self._last: list[NDArray] = []  # the last next observation, one `[E, ...]` per leaf
        self._runs = np.zeros(num_envs, bool)  # whether `_last` is not in a frame yet
        self._ended = np.zeros(num_envs, bool)
        self._samples: dict[tuple, Any] = {}

    @classmethod
    def from_env(
        cls, env: gym.Env | gym.vector.VectorEnv, capacity: int | None = None, **kwargs: Any
    ) -> "TFAgentsReplayBuffer":
        """Creates a buffer with the spaces and the `num_envs` of an environment.

        Args:
            env: A Gymnasium environment or vector environment.
            capacity: Int, frames over all environments, or None if `replay_buffer` is given.
            **kwargs: Further arguments of the constructor.
        """
        return cls(capacity, *single_spaces(env), num_envs=num_envs_of(env), **kwargs)

    def __len__(self) -> int:
        """Returns the number of frames; TF-Agents counts boundary frames too."""
        return int(self.replay_buffer.num_frames())

    # Writing

    def add(
        self,
        observation: Any,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        next_observation: Any,
        *,
        where: Any = None,
    ) -> None:
        """Stores one step of all environments. The arguments are those of `ReplayBuffer.add`.

        With several environments, the last transition can be drawn only after the next `add`, which
        stores the frame of its next observation.
        """
        observations, actions, rewards, terminated, truncated, next_observations, stepped = (
            self._checks.step(
                observation, action, reward, terminated, truncated, next_observation, where
            )
        )
        steps = np.ones(self.num_envs, bool) if stepped is None else np.array(stepped)
        if (steps & self._runs & (self._ended | ~self._holds(observations))).any():
            self._add_boundary(observations)
        ended = steps & (np.array(terminated) | truncated)
        self._add_frames(
            self._where(self._runs & ~steps, self._last, observations),
            np.where(steps, actions, 0),
            np.where(steps, rewards, 0.0),
            np.where(steps & terminated, 0.0, 1.0),
            np.where(steps, np.where(self._runs, MID, FIRST), LAST),
            np.where(steps, np.where(ended, LAST, MID), FIRST),
        )
        self._last = [leaf.copy() for leaf in next_observations]  # the caller may change its arrays
        self._runs, self._ended = steps, ended
        if self.num_envs == 1 and ended.any():
            self._add_boundary(next_observations)

    def _add_boundary(self, observations: list[NDArray]) -> None:
        """Adds a frame that ends running episodes; its observation means nothing for the others."""
        of_no_step = np.zeros(self.num_envs)
        self._add_frames(
            self._where(self._runs, self._last, observations),
            of_no_step,
            of_no_step,
            of_no_step + 1.0,
            of_no_step + LAST,
            of_no_step + FIRST,
        )
        self._runs = np.zeros(self.num_envs, bool)

    def _add_frames(self, observations: list[NDArray], *columns: NDArray) -> None:
        action, reward, discount, step_type, next_step_type = columns
        spec = self.replay_buffer.data_spec
        frames = spec._replace(
            step_type=step_type,
            observation=self._pack(observations),
            action=action,
            next_step_type=next_step_type,
            reward=reward,
            discount=discount,
        )
        self.replay_buffer.add_batch(
            tf.nest.map_structure(lambda leaf, array: tf.constant(array, leaf.dtype), spec, frames)
        )

    def _holds(self, observations: list[NDArray]) -> NDArray[np.bool_]:
        """Returns `[E]`, whether observations equal the last next observations."""
        held = np.ones(self.num_envs, bool)
        for last, leaf in zip(self._last, observations, strict=bool(self._last)):
            held &= (last == leaf).reshape(self.num_envs, -1).all(axis=1)
        return held

    def _where(
        self, condition: NDArray[np.bool_], chosen: list[NDArray], others: list[NDArray]
    ) -> list[NDArray]:
        """Returns rows of `chosen` where `condition` `[E]` is True, else rows of `others`."""
        if not condition.any():
            return others
        return [
            np.where(condition.reshape(-1, *[1] * (other.ndim - 1)), leaf, other)
            for leaf, other in zip(chosen, others, strict=True)
        ]

    # Drawing

    def dataset(self, batch_size: int, *, gamma: float = 0.99, n_step: int = 1) -> ReplayDataset:
        """Returns an endless `tf.data.Dataset` of the batches of `sample`, drawn when needed.

        Args:
            batch_size: Int, transitions in a batch, B, at least 1.
            gamma: Float in [0, 1], the discount of one environment step. Defaults to `0.99`.
            n_step: Int, environment steps in a return, n, at least 1. Defaults to `1`.

        Raises:
            ValueError: If an argument is outside its range.
        """
        return ReplayDataset(self, batch_size, gamma=gamma, n_step=n_step)

    def sample(
        self,
        batch_size: int,
        *,
        gamma: float = 0.99,
        n_step: int = 1,
        num_batches: int | None = None,
    ) -> tuple:
        """Draws windows of n steps from the frames as the triple that `fit` unpacks, in NumPy.

        TensorFlow's global seed (`keras.utils.set_random_seed`) determines the draws.

        Args:
            batch_size: Int, transitions in a batch, B, at least 1.
            gamma: Float in [0, 1], the discount of one environment step. Defaults to `0.99`.
            n_step: Int, environment steps in a return, n, at least 1. Defaults to `1`.
            num_batches: Int, batches K of a stack `[K, B, ...]`; None draws one batch `[B, ...]`.
                Defaults to `None`.

        Returns:
            The same as `ReplayBuffer.sample`; all weights are 0 if only boundary frames were drawn.

        Raises:
            ValueError: If an argument is outside its range.
            RuntimeError: If no window can be drawn yet.
        """
        check_sampling(batch_size, gamma, n_step, num_batches)
        if num_batches is not None:
            batches = [
                self.sample(batch_size, gamma=gamma, n_step=n_step) for _ in range(num_batches)
            ]
            return keras.tree.map_structure(lambda *columns: np.stack(columns), *batches)
        if len(self) < self.num_envs * (n_step + 1):
            raise RuntimeError(
                f"The replay buffer holds no complete window of {n_step} steps yet: add more "
                f"transitions or lower `n_step`. Received: n_step={n_step}, frames={len(self)}"
            )
        key = (batch_size, gamma, n_step)
        if key not in self._samples:
            trajectories = self.replay_buffer.as_dataset(batch_size, n_step + 1)
            transitions = transitions_from_trajectories(trajectories, gamma)
            self._samples[key] = transitions.as_numpy_iterator()
        batch = next(self._samples[key])
        weight = batch[-1]
        valid = np.flatnonzero(weight)
        if not 0 < len(valid) < batch_size:
            return batch
        rows = np.arange(batch_size)
        rows[weight == 0] = np.resize(valid, batch_size - len(valid))
        return keras.tree.map_structure(lambda column: column[rows], batch)

    def empty_batch(self) -> tuple:
        """Returns a batch of 0 transitions, to show the shapes and dtypes of `sample`."""
        observation = tf.nest.map_structure(
            lambda spec: np.zeros((0, *spec.shape), spec.dtype.as_numpy_dtype),
            self.replay_buffer.data_spec.observation,
        )
        none = np.zeros(0, np.float32)
        transition = {
            "action": none.astype(np.int32),
            "reward": none,
            "discount": none,
            "next_observation": observation,
        }
        return observation, transition, none


def _make_replay_buffer(spec: Any, num_envs: int, max_length: int) -> Any:
    from tf_agents.replay_buffers.tf_uniform_replay_buffer import TFUniformReplayBuffer

    return TFUniformReplayBuffer(spec, batch_size=num_envs, max_length=max_length)
