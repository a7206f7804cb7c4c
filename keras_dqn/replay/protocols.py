"""Protocols: the methods that a replay buffer and its parts must have."""

from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay.n_step import Windows
from keras_dqn.replay.sum_tree import SumTree


@runtime_checkable
class DrawnFrom(Protocol):
    """A source of batches for a `ReplayDataset`."""

    def sample(
        self,
        batch_size: int,
        *,
        gamma: float = 0.99,
        n_step: int = 1,
        num_batches: int | None = None,
    ) -> tuple:
        """Draws a batch, or a stack `[K, B, ...]` of batches, as `ReplayBuffer.sample` says."""

    def empty_batch(self) -> tuple:
        """Returns a batch of 0 transitions, to show the shapes and dtypes of `sample`."""


@runtime_checkable
class TakesTransitions(Protocol):
    """What a collector adds to."""

    observation_space: gym.Space
    action_space: gym.Space
    num_envs: int

    def __len__(self) -> int:
        """Returns the number of transitions it holds."""

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
        """Stores one step of all environments, as `ReplayBuffer.add` says."""


@runtime_checkable
class Replay(TakesTransitions, DrawnFrom, Protocol):
    """A replay buffer: collectors add to it, a `ReplayDataset` draws from it."""

    capacity: int


@runtime_checkable
class TakesPriorities(Protocol):
    """A buffer that draws by priority: its transitions have a `key`."""

    def update_priorities(self, keys: Any, td_error: Any) -> None:
        """Takes the TD errors of transitions, as `PrioritizedReplayBuffer` says."""

    def expect_feedback(self, num_batches: int) -> None:
        """Counts drawn batches whose TD errors should come back."""


class Sampler(Protocol):
    """Draws the starts of complete windows from the rings of a buffer."""

    def draw(
        self, num_batches: int, batch_size: int, gamma: float, n_step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Windows]:
        """Returns the environments and rows `[K * B]` of starts, and their windows."""

    def weights(self, slots: NDArray[np.int64]) -> NDArray[Any]:
        """Returns the importance weights `[K, B]` of the starts in slots `[K, B]`."""


class Priorities(Protocol):
    """Decides how often each slot of a prioritized buffer is drawn."""

    largest: float

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""

    def tree(self) -> SumTree:
        """Returns the tree to draw from."""

    def set(self, slots: NDArray[np.int64], priorities: NDArray[np.float64]) -> None:
        """Sets the priorities `[N]` of slots `[N]`; if a slot occurs twice, its last one counts."""

    def enter(self, slots: NDArray[np.int64], empty: NDArray[np.int64]) -> None:
        """Gives `slots` the largest priority so far, and `empty` slots the priority 0."""

    def arrays(self) -> dict[str, NDArray]:
        """Returns the arrays to save, with one entry per slot."""

    def restored(self) -> None:
        """Computes the rest of the state, after the arrays of `arrays` were changed."""

    def get_state(self) -> dict[str, Any]:
        """Returns the exact state but `largest`: copies of arrays, one entry per slot, and ints."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
