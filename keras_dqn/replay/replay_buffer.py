"""Uniform experience replay: one ring of rows per environment, NumPy in and NumPy out."""

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from keras_dqn.environments import check_discrete, num_envs_of, single_spaces
from keras_dqn.replay.n_step import TERMINATED, TRUNCATED, Windows
from keras_dqn.replay.observation_layout import ObservationLayout, add_axis
from keras_dqn.replay.rings import Rings

if TYPE_CHECKING:
    from keras_dqn.replay.replay_dataset import ReplayDataset

_LARGEST_REWARD = float(np.finfo(np.float32).max)
_BOOLEAN, _INTEGER, _NUMBER = "b", "biu", "biuf"  # kinds of NumPy dtypes
_KIND_NAMES = {_BOOLEAN: "boolean", _INTEGER: "integer", _NUMBER: "a real number"}
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
        self._first_action, self.num_actions = int(action_space.start), int(action_space.n)
        self.capacity = capacity
        self.observation_space = observation_space
        self.action_space = action_space
        self.num_envs = num_envs
        self.seed = seed
        self._rng = np.random.default_rng(seed)
        self._layout = ObservationLayout(observation_space)
        self._rings = Rings(num_envs, capacity // num_envs, self._layout.leaves)

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
        return self._rings.num_transitions

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
            ValueError: If a shape or dtype does not fit the spaces, an action or a discrete
                observation is outside its space, or a number is NaN or infinite. Numbers outside
                the bounds of a Box are stored, with one warning.
        """
        reward = np.asarray(reward)
        if self.num_envs == 1 and reward.ndim == 0:
            observation, next_observation = add_axis(observation), add_axis(next_observation)
            action, reward, terminated, truncated = [action], [reward], [terminated], [truncated]
        observations = self._layout.check("observation", observation, self.num_envs)
        actions = self._check_actions(action)
        rewards = self._check_rewards(reward)
        terminated = self._check_numbers("terminated", terminated, _BOOLEAN)
        truncated = self._check_numbers("truncated", truncated, _BOOLEAN)
        next_observations = self._layout.check("next_observation", next_observation, self.num_envs)
        stepped = None if where is None else self._check_numbers("where", where, _BOOLEAN)
        append = self._rings.append
        for e in range(self.num_envs):
            if stepped is None or stepped[e]:
                end = terminated[e] * TERMINATED | truncated[e] * TRUNCATED
                append(e, observations, actions[e], rewards[e], end, next_observations)

    def _check_actions(self, action: Any) -> list[int]:
        """Returns the 0-based actions."""
        first = self._first_action
        actions = [a - first for a in self._check_numbers("action", action, _INTEGER)]
        if min(actions) < 0 or max(actions) >= self.num_actions:
            raise ValueError(f"`action` must be in {self.action_space}. Received: action={action}")
        return actions

    def _check_rewards(self, reward: Any) -> list[float]:
        rewards = self._check_numbers("reward", reward, _NUMBER)
        if not all(abs(r) <= _LARGEST_REWARD for r in rewards):  # NaN is not
            raise ValueError(f"`reward` must be finite in float32. Received: reward={reward}")
        return rewards

    def _check_numbers(self, argument: str, value: Any, kinds: str) -> list:
        """Returns `[E]` as Python numbers, which are the fastest to handle one by one."""
        array = np.asarray(value)
        if array.shape != (self.num_envs,):
            raise ValueError(
                f"`{argument}` must have shape ({self.num_envs},), one entry an environment. "
                f"Received: shape={array.shape}"
            )
        if array.dtype.kind not in kinds:
            raise ValueError(
                f"`{argument}` must be {_KIND_NAMES[kinds]}. Received: dtype={array.dtype}, "
                f"{argument}={value}"
            )
        return array.tolist()

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
        return self._gather(nothing, nothing, self._rings.windows(nothing, nothing, 1.0, 1))

    def _gather(self, env: NDArray[np.int64], row: NDArray[np.int64], window: Windows) -> tuple:
        start = self._rings.slots(env, row)
        after = self._rings.slots(env, row + window.steps)
        leaves = self._rings.observations
        transition = {
            "action": self._rings.actions[start],
            "reward": window.reward.astype(np.float32),
            "discount": window.discount.astype(np.float32),
            "next_observation": self._layout.pack([leaf.take(after, axis=0) for leaf in leaves]),
        }
        observation = self._layout.pack([leaf.take(start, axis=0) for leaf in leaves])
        return observation, transition, np.ones(len(row), np.float32)

    def _draw(
        self, batch_size: int, gamma: float, n_step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Windows]:
        """Draws rows until each is the start of a complete window: uniform over those."""
        if not len(self):
            raise RuntimeError("The replay buffer is empty: `add` transitions before drawing some.")
        env, row = self._draw_rows(batch_size)
        window = self._rings.windows(env, row, gamma, n_step)
        for _ in range(_MAX_REDRAWS):
            missing = np.flatnonzero(~window.complete)
            if not len(missing):
                return env, row, window
            env[missing], row[missing] = self._draw_rows(len(missing))
            redrawn = self._rings.windows(env[missing], row[missing], gamma, n_step)
            for values, new_values in zip(window, redrawn, strict=True):
                values[missing] = new_values
        env, row = self._draw_among_complete(batch_size, n_step)
        return env, row, self._rings.windows(env, row, gamma, n_step)

    def _draw_rows(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # Rings of unequal length are drawn from as if all were the longest: what a shorter one does
        # not hold is no complete window and is drawn again.
        longest = int(self._rings.stored().max())
        env, age = np.divmod(self._rng.integers(self.num_envs * longest, size=count), longest)
        return env, self._rings.heads()[env] - 1 - age

    def _draw_among_complete(
        self, count: int, n_step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Does the same by looking at every row, for the rare buffer with few complete windows."""
        stored = self._rings.stored()
        env = np.repeat(np.arange(self.num_envs), stored)
        row = np.arange(len(env)) + np.repeat(self._rings.heads() - np.cumsum(stored), stored)
        complete = np.flatnonzero(self._rings.windows(env, row, 1.0, n_step).complete)
        if not len(complete):
            raise RuntimeError(
                f"The replay buffer holds no complete window of {n_step} steps yet: add more "
                f"transitions or lower `n_step`. Received: n_step={n_step}, stored={len(self)}"
            )
        chosen = complete[self._rng.integers(len(complete), size=count)]
        return env[chosen], row[chosen]

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
