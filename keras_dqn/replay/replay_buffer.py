"""Uniform experience replay: one ring of rows per environment, NumPy in and NumPy out."""

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from keras_dqn.environments import check_discrete, num_envs_of, single_spaces
from keras_dqn.replay.n_step import BOUNDARY, TERMINATED, TRUNCATED, Windows, windows
from keras_dqn.replay.observation_layout import ObservationLayout, add_axis

if TYPE_CHECKING:
    from keras_dqn.replay.replay_dataset import ReplayDataset

_MAX_REDRAWS = 64


class ReplayBuffer:
    """Stores transitions and draws them uniformly, with replacement.

    Each environment writes into a ring of its own. A row holds an observation and the action,
    reward and end of the step taken from it; the next observation is the row that follows, so that
    each observation is stored once. The final observation of an episode is a boundary row: it
    takes a row and is never drawn as a start. If an environment's `observation` is not its last
    `next_observation` although no episode ended (somebody reset it), that `next_observation`
    becomes a boundary row too, and windows end there as at a truncation.

    Args:
        capacity: Int, rows over all environments; `capacity // num_envs` for each of them. The
            oldest are overwritten.
        observation_space: Gymnasium space of one environment's observations: Box, Discrete,
            MultiBinary, MultiDiscrete or a (nested) Dict of them.
        action_space: `gymnasium.spaces.Discrete` of one environment.
        num_envs: Int, E, the number of environments that are stepped together. Defaults to `1`.
        seed: Int or None, of the generator that draws. Defaults to `None`.

    Raises:
        ValueError: If `capacity` is below `num_envs` or a space is of another kind.

    Example:
    >>> space = gym.spaces.Box(-1.0, 1.0, (2,))
    >>> replay = ReplayBuffer(100, space, gym.spaces.Discrete(3), seed=0)
    >>> replay.add(np.zeros(2), 1, 0.5, False, False, np.ones(2))
    >>> observation, transition, weight = replay.sample(4, gamma=0.9)
    >>> transition["action"]
    array([1, 1, 1, 1], dtype=int32)

    Reference:
        Lin, 1992, "Self-improving reactive agents based on reinforcement learning, planning and
        teaching"; Mnih et al., 2015.
    """

    def __init__(
        self,
        capacity: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        num_envs: int = 1,
        seed: int | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"`num_envs` must be at least 1. Received: {num_envs=}")
        if capacity < num_envs:
            raise ValueError(
                f"`capacity` must hold at least a row for each environment. Received: "
                f"{capacity=}, {num_envs=}"
            )
        check_discrete(action_space)
        self.capacity = capacity
        self.observation_space = observation_space
        self.action_space = action_space
        self.num_envs = num_envs
        self.seed = seed
        self._rng = np.random.default_rng(seed)
        self._layout = ObservationLayout(observation_space)
        self._allocate(capacity // num_envs + 1)  # one slot more, for the last next observation

    def _allocate(self, ring_size: int) -> None:
        slots = self.num_envs * ring_size
        self._ring_size = ring_size
        self._observations = [
            np.zeros((slots, *leaf.shape), leaf.dtype) for leaf in self._layout.leaves
        ]
        self._actions = np.zeros(slots, np.int32)
        self._rewards = np.zeros(slots, np.float32)
        self._flags = np.zeros(slots, np.uint8)
        # Rows are counted from the first one ever written; row r lies in slot r % ring_size. The
        # head is the row to come: its slot holds the last next observation while an episode runs.
        self._head = np.zeros(self.num_envs, np.int64)
        self._runs = np.zeros(self.num_envs, bool)
        self._base = np.arange(self.num_envs, dtype=np.int64) * ring_size
        self._num_transitions = 0

    @classmethod
    def from_env(
        cls, env: gym.Env | gym.vector.VectorEnv, capacity: int, **kwargs: Any
    ) -> "ReplayBuffer":
        """Creates a buffer for an environment, with its spaces and its `num_envs`.

        Args:
            env: A Gymnasium environment or vector environment.
            capacity: Int, rows over all environments.
            **kwargs: Further arguments of the constructor.
        """
        observation_space, action_space = single_spaces(env)
        return cls(capacity, observation_space, action_space, num_envs=num_envs_of(env), **kwargs)

    def __len__(self) -> int:
        """Returns the number of stored transitions; boundary rows are none."""
        return self._num_transitions

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
        """Stores one step of all environments.

        The leading axis `[E]` may be left out when `num_envs=1`. A call that is refused changes
        nothing.

        Args:
            observation: `[E, ...]` (or a dict of such), what the action was chosen from.
            action: `[E]` integer, elements of `action_space`, as `env.step` took them.
            reward: `[E]` float, finite.
            terminated: `[E]` bool.
            truncated: `[E]` bool.
            next_observation: `[E, ...]`, what the step led to: the final observation of an episode,
                never the one it was reset to.
            where: `[E]` bool, which environments took a step; False for one that an autoreset has
                just reset. Defaults to all.

        Raises:
            ValueError: If a shape or dtype does not fit the spaces, an action is outside its space,
                or a number is NaN or infinite.
        """
        if self.num_envs == 1 and np.ndim(reward) == 0:
            observation, next_observation = add_axis(observation), add_axis(next_observation)
            action, reward, terminated, truncated = ([v] for v in (action, reward, terminated, truncated))  # fmt: skip
        observations = self._layout.check("observation", observation, self.num_envs)
        actions = self._check_action(action)
        rewards = self._check_numbers("reward", reward, np.float32)
        flags = self._check_numbers("terminated", terminated, np.bool_) * TERMINATED
        flags |= self._check_numbers("truncated", truncated, np.bool_) * TRUNCATED
        next_observations = self._layout.check("next_observation", next_observation, self.num_envs)
        envs = np.arange(self.num_envs)
        if where is not None:
            envs = np.flatnonzero(self._check_numbers("where", where, np.bool_))
        self._cut_where_observation_is_new(envs, observations)
        self._write_rows(envs, observations, actions, rewards, flags)
        self._write_next_observations(envs, next_observations, flags)

    def _check_action(self, action: Any) -> NDArray:
        array = self._check_numbers("action", action, np.int64) - self.action_space.start
        if (array < 0).any() or (array >= self.action_space.n).any():
            raise ValueError(f"`action` must be in {self.action_space}. Received: action={action}")
        return array

    def _check_numbers(self, argument: str, value: Any, dtype: type) -> NDArray:
        array = np.asarray(value)
        if array.shape != (self.num_envs,):
            raise ValueError(
                f"`{argument}` must have shape ({self.num_envs},), one entry an environment. "
                f"Received: shape={array.shape}"
            )
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(
                f"`{argument}` must have a dtype that casts to {np.dtype(dtype)} within its kind. "
                f"Received: dtype={array.dtype}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"`{argument}` must be finite. Received: {argument}={value}")
        return array.astype(dtype)

    def _cut_where_observation_is_new(self, envs: NDArray, observations: list[NDArray]) -> None:
        envs = envs[self._runs[envs]]
        if not len(envs):
            return
        slots = self._base[envs] + self._head[envs] % self._ring_size
        new = np.zeros(len(envs), bool)
        for stored, leaf in zip(self._observations, observations, strict=True):
            differs = stored[slots] != leaf[envs].astype(stored.dtype)
            new |= differs.reshape(len(envs), -1).any(axis=1)
        if new.any():
            cut = envs[new]
            self._flags[self._base[cut] + (self._head[cut] - 1) % self._ring_size] |= TRUNCATED
            self._advance(cut, BOUNDARY)

    def _write_rows(
        self,
        envs: NDArray,
        observations: list[NDArray],
        actions: NDArray,
        rewards: NDArray,
        flags: NDArray,
    ) -> None:
        slots = self._base[envs] + self._head[envs] % self._ring_size
        for stored, leaf in zip(self._observations, observations, strict=True):
            stored[slots] = leaf[envs]
        self._actions[slots] = actions[envs]
        self._rewards[slots] = rewards[envs]
        self._advance(envs, flags[envs])
        self._num_transitions += len(envs)

    def _write_next_observations(
        self, envs: NDArray, next_observations: list[NDArray], flags: NDArray
    ) -> None:
        slots = self._base[envs] + self._head[envs] % self._ring_size
        for stored, leaf in zip(self._observations, next_observations, strict=True):
            stored[slots] = leaf[envs]
        ended = flags[envs] > 0
        self._runs[envs] = ~ended
        self._advance(envs[ended], BOUNDARY)

    def _advance(self, envs: NDArray, flags: Any) -> None:
        """Takes the row at the head into the ring; the slot after it becomes the new head's."""
        slots = self._base[envs] + self._head[envs] % self._ring_size
        self._flags[slots] = flags
        self._head[envs] += 1
        dropped = self._base[envs] + self._head[envs] % self._ring_size
        was_transition = (self._head[envs] >= self._ring_size) & (self._flags[dropped] < BOUNDARY)
        self._num_transitions -= int(was_transition.sum())

    # Drawing

    def sample(self, batch_size: int, *, gamma: float = 0.99, n_step: int = 1) -> tuple:
        """Draws transitions uniformly, with replacement, as the triple that `fit` unpacks.

        Only starts whose window is complete are drawn: n steps are stored, or the episode ended
        within them.

        Args:
            batch_size: Int, B, at least 1.
            gamma: Float in [0, 1], the discount of a step. Defaults to `0.99`.
            n_step: Int, n, at least 1. Defaults to `1`.

        Returns:
            `(observation, transition, weight)`: `[B, ...]` of the space's dtype (or a dict of
            such); a dict with `action` `[B]` int32 (0-based), `reward` `[B]` float32 (the n-step
            sum), `discount` `[B]` float32 (`gamma**m * (1 - terminated)`) and `next_observation`
            `[B, ...]`; and ones `[B]` float32.

        Raises:
            ValueError: If an argument is outside its range.
            RuntimeError: If no transition can be drawn yet.
        """
        check_sampling(batch_size, gamma, n_step)
        return self._gather(*self._draw(batch_size, gamma, n_step))

    def empty_batch(self) -> tuple:
        """Returns a batch of no transitions, which shows the shapes and dtypes of `sample`."""
        nothing = np.zeros(0, np.int64)
        return self._gather(nothing, nothing, self._windows(nothing, nothing, 1.0, 1))

    def _gather(self, env: NDArray[np.int64], row: NDArray[np.int64], window: Windows) -> tuple:
        start = self._base[env] + row % self._ring_size
        after = self._base[env] + (row + window.steps) % self._ring_size
        transition = {
            "action": self._actions[start],
            "reward": window.reward.astype(np.float32),
            "discount": window.discount.astype(np.float32),
            "next_observation": self._layout.pack([leaf[after] for leaf in self._observations]),
        }
        observation = self._layout.pack([leaf[start] for leaf in self._observations])
        return observation, transition, np.ones(len(row), np.float32)

    def _draw(
        self, batch_size: int, gamma: float, n_step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Windows]:
        """Draws rows until each is the start of a complete window: uniform over those."""
        if not self._num_transitions:
            raise RuntimeError("The replay buffer is empty: `add` transitions before drawing some.")
        env, row = self._draw_rows(batch_size)
        for _ in range(_MAX_REDRAWS):
            window = self._windows(env, row, gamma, n_step)
            (missing,) = np.nonzero(~window.complete)
            if not len(missing):
                return env, row, window
            env[missing], row[missing] = self._draw_rows(len(missing))
        env, row = self._draw_among_complete(batch_size, n_step)
        return env, row, self._windows(env, row, gamma, n_step)

    def _draw_rows(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        stored = np.minimum(self._head, self._ring_size - 1)
        ends = np.cumsum(stored)
        drawn = self._rng.integers(ends[-1], size=count)
        env = np.searchsorted(ends, drawn, side="right")
        return env, drawn - ends[env] + self._head[env]

    def _draw_among_complete(
        self, count: int, n_step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Does the same by looking at every row, for the rare buffer with few complete windows."""
        stored = np.minimum(self._head, self._ring_size - 1)
        env = np.repeat(np.arange(self.num_envs), stored)
        row = np.concatenate(
            [np.arange(head - size, head) for head, size in zip(self._head, stored, strict=True)]
        )
        (complete,) = np.nonzero(self._windows(env, row, 1.0, n_step).complete)
        if not len(complete):
            raise RuntimeError(
                f"The replay buffer holds no complete window of {n_step} steps yet: add more "
                f"transitions or lower `n_step`. Received: n_step={n_step}, stored={len(self)}"
            )
        chosen = complete[self._rng.integers(len(complete), size=count)]
        return env[chosen], row[chosen]

    def _windows(self, env: NDArray, row: NDArray, gamma: float, n_step: int) -> Windows:
        return windows(
            self._flags,
            self._rewards,
            self._base[env],
            row,
            self._head[env],
            self._ring_size,
            gamma,
            n_step,
        )

    def dataset(self, batch_size: int, *, gamma: float = 0.99, n_step: int = 1) -> "ReplayDataset":
        """Returns an endless `tf.data.Dataset` of what `sample` gives, drawn when it is asked for.

        Args:
            batch_size: Int, B, at least 1.
            gamma: Float in [0, 1], the discount of a step. Defaults to `0.99`.
            n_step: Int, n, at least 1. Defaults to `1`.

        Raises:
            ValueError: If an argument is outside its range.
        """
        from keras_dqn.replay.replay_dataset import ReplayDataset

        return ReplayDataset(self, batch_size, gamma=gamma, n_step=n_step)


def check_sampling(batch_size: int, gamma: float, n_step: int) -> None:
    """Raises a `ValueError` if an argument of `sample` or `dataset` is outside its range."""
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"`gamma` must be in [0, 1]. Received: gamma={gamma}")
    if n_step < 1:
        raise ValueError(f"`n_step` must be at least 1. Received: n_step={n_step}")
