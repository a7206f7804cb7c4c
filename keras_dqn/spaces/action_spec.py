"""Describes actions: their space, two numberings, checks, and how they are chosen.

Inside the package, actions are 0-based. Environments and `ReplayBuffer.add` take elements of the
space, which may start at another number. Choices are made on the host, over the last axis of
`[E, A]`. The value -inf marks an action that a mask forbids.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from keras_dqn.spaces.action_mask import existing_actions, forbid


class ActionSpec:
    """Describes an action space. No other code in the package reads the space.

    An action of a MultiDiscrete space has D branches, each with a choice of its own. All arrays
    then have one more axis `[D]`, before the axis `[A]` of values.

    Args:
        space: `gymnasium.spaces.Discrete`, or `MultiDiscrete` with one axis.

    Attributes:
        num_actions: Int, A, the choices of the widest branch.
        sizes: `num_actions`, or the choices of each branch, `[D]` int64.
        start: Int, or a tuple of D ints: the environment's action that has the number 0 here.
        shape: The shape of one action, `()` or `(D,)`.

    Raises:
        ValueError: If the space is of another kind.
    """

    def __init__(self, space: gym.Space) -> None:
        self.space = space
        self.sizes: Any
        self.start: int | tuple[int, ...] = 0
        self.shape: tuple[int, ...] = ()
        if isinstance(space, gym.spaces.Discrete):
            self.sizes, self.start = int(space.n), int(space.start)
        elif isinstance(space, gym.spaces.MultiDiscrete) and len(space.shape) == 1:
            self.sizes, self.shape = space.nvec.astype(np.int64), tuple(space.shape)
            if space.start.any():
                self.start = tuple(space.start.tolist())
        else:
            raise ValueError(
                "`action_space` must be gymnasium.spaces.Discrete, or MultiDiscrete with one axis: "
                "Q-learning takes the maximum over a finite set of actions. Received: "
                f"action_space={space}"
            )
        self.num_actions = int(np.max(self.sizes))

    @property
    def values_shape(self) -> tuple[int, ...]:
        """The shape of the values of all actions, `(A,)` or `(D, A)`."""
        return (*self.shape, self.num_actions)

    @property
    def branch_sizes(self) -> tuple[int, ...] | None:
        """The choices of each branch if they are not equal, else None."""
        return tuple(self.sizes.tolist()) if np.ptp(self.sizes) else None

    def to_env(self, action: Any) -> Any:
        """Converts 0-based actions, an int or an array, to the actions that `env.step` takes."""
        return action + np.array(self.start) if self.shape else action + self.start

    def from_env(self, action: list, argument: str = "action") -> list:
        """Returns 0-based actions for elements of the space.

        Raises:
            ValueError: If an action is outside the space.
        """
        if self.shape:
            branches = np.array(action) - self.start
            inside = bool(((branches >= 0) & (branches < self.sizes)).all())
            actions = branches.tolist()
        else:
            start, num_actions = self.start, self.num_actions
            actions = [a - start for a in action]
            inside = all(0 <= a < num_actions for a in actions)
        if not inside:
            raise ValueError(f"`{argument}` must be in {self.space}. Received: {argument}={action}")
        return actions

    def check_values(self, values: NDArray, num_envs: int) -> None:
        """Raises a `ValueError` unless a model's values are `[E, A]`, one for each action."""
        expected = (num_envs, *self.values_shape)
        if values.shape != expected:
            raise ValueError(
                f"The network must give one value for each of the {self.num_actions} actions of "
                f"{self.space}: shape {expected}. Received: shape={values.shape}"
            )

    def sample(
        self, rng: np.random.Generator, num_envs: int, mask: NDArray | None = None
    ) -> NDArray[np.int64]:
        """Returns uniformly random actions, `[E]`, 0-based, of those that a mask `[E, A]` allows.

        A row that allows none gives 0.
        """
        if mask is None:
            return rng.integers(self.sizes, size=(num_envs, *self.shape))
        draws = rng.random((num_envs, *self.values_shape))
        return greedy_actions(forbid(draws, self.allowed(mask)))

    def allowed(self, mask: NDArray) -> NDArray:
        """Returns a mask with 0 where a branch has no such action."""
        sizes = self.branch_sizes
        return mask if sizes is None else mask * existing_actions(sizes)


def greedy_actions(values: NDArray) -> NDArray[np.int64]:
    """Returns the action with the highest value in each row; of equal values, the lowest action.

    Args:
        values: `[..., A]` float, -inf where an action is forbidden.

    Returns:
        `[...]` int64.
    """
    return values.argmax(axis=-1)


def random_actions(values: NDArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns a uniformly random action for each row of values.

    Args:
        values: `[..., A]` float, -inf where an action is forbidden.
        rng: The NumPy generator that draws.

    Returns:
        `[...]` int64.
    """
    allowed = values != -np.inf  # also NaN
    if allowed.all():
        return rng.integers(values.shape[-1], size=values.shape[:-1])
    return greedy_actions(np.where(allowed, rng.random(values.shape), -np.inf))
