"""Describes actions: their space, two numberings, checks, and how they are chosen.

Inside the package, actions are 0-based. Environments and `ReplayBuffer.add` take elements of the
space, which may start at another number. Choices are made on the host, over the last axis of
`[E, A]`. The value -inf marks an action that a mask forbids.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from keras_dqn.spaces.action_mask import forbid


class ActionSpec:
    """Describes an action space. No other code in the package reads the space.

    Args:
        space: `gymnasium.spaces.Discrete`.

    Attributes:
        num_actions: Int, A.
        start: Int, the environment's action that has the number 0 in the package.
        shape: The shape of one action, `()`.

    Raises:
        ValueError: If the space is not `Discrete`.
    """

    shape: tuple[int, ...] = ()

    def __init__(self, space: gym.Space) -> None:
        if not isinstance(space, gym.spaces.Discrete):
            raise ValueError(
                "`action_space` must be gymnasium.spaces.Discrete: Q-learning takes the maximum "
                f"over a finite set of actions. Received: action_space={space}"
            )
        self.space = space
        self.num_actions = int(space.n)
        self.start = int(space.start)

    def to_env(self, action: Any) -> Any:
        """Converts 0-based actions, an int or an array, to the actions that `env.step` takes."""
        return action + self.start

    def from_env(self, action: list[int]) -> list[int]:
        """Returns 0-based actions for elements of the space.

        Raises:
            ValueError: If an action is outside the space.
        """
        start, num_actions = self.start, self.num_actions
        actions = [a - start for a in action]
        for a in actions:
            if not 0 <= a < num_actions:
                raise ValueError(f"`action` must be in {self.space}. Received: action={action}")
        return actions

    def check_values(self, values: NDArray, num_envs: int) -> None:
        """Raises a `ValueError` unless a model's values are `[E, A]`, one for each action."""
        if values.shape != (num_envs, self.num_actions):
            raise ValueError(
                f"The network must give one value for each of the {self.num_actions} actions of "
                f"{self.space}: shape {(num_envs, self.num_actions)}. Received: "
                f"shape={values.shape}"
            )

    def sample(
        self, rng: np.random.Generator, num_envs: int, mask: NDArray | None = None
    ) -> NDArray[np.int64]:
        """Returns uniformly random actions, `[E]`, 0-based, of those that a mask `[E, A]` allows.

        A row that allows none gives 0.
        """
        if mask is None:
            return rng.integers(self.num_actions, size=num_envs)
        return greedy_actions(forbid(rng.random((num_envs, self.num_actions)), mask))


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
