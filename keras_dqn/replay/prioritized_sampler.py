"""Draws rows of a prioritized replay buffer, and computes the weights that correct the bias."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.arguments import check_number
from keras_dqn.replay.n_step import BOUNDARY
from keras_dqn.replay.protocols import Priorities
from keras_dqn.replay.ring_arrays import RingArrays, rows_before
from keras_dqn.replay.uniform_sampler import Rows, UniformSampler


class PrioritizedSampler(UniformSampler):
    """Draws rows by priority; see `PrioritizedReplayBuffer` for the formulas.

    Args:
        rings: The `RingArrays` with the rows.
        rng: The NumPy generator that draws.
        priorities: `Proportional` or `RankBased`, of the slots of the rings.
        beta: Float, or a callable of the number of updates.
    """

    def __init__(
        self,
        rings: RingArrays,
        rng: np.random.Generator,
        priorities: Priorities,
        beta: float | Callable[[int], float],
    ) -> None:
        super().__init__(rings, rng)
        self.priorities = priorities
        self.beta = beta
        self.updates = 0
        self._seen_heads = rings.heads()

    def take_new_rows(self) -> None:
        """Gives rows written since the last call the largest priority, and boundary rows 0."""
        rings, heads = self.rings, self.rings.heads()
        counts = np.minimum(heads - self._seen_heads, rings.num_rows)
        if not counts.any():
            return
        slots = rings.slots(*rows_before(heads, counts))
        starts = rings.flags[slots] < BOUNDARY
        no_rows = rings.slots(np.arange(len(heads)), heads)
        self.priorities.enter(slots[starts], np.concatenate([slots[~starts], no_rows]))
        self._seen_heads = heads

    def restored(self, largest_priority: float, seen_heads: list[int]) -> None:
        """Restores the state after loading; rows up to `seen_heads` already have priorities."""
        self.priorities.largest = largest_priority
        self.priorities.restored()
        self._seen_heads = np.array(seen_heads, np.int64)

    def get_state(self) -> dict[str, Any]:
        """Returns the exact state; rows after `seen_heads` have no priorities yet."""
        return {
            "updates": self.updates,
            "largest_priority": float(self.priorities.largest),
            "seen_heads": self._seen_heads.tolist(),
            "priorities": self.priorities.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
        self.updates = state["updates"]
        self.priorities.largest = state["largest_priority"]
        self._seen_heads = np.array(state["seen_heads"], np.int64)
        self.priorities.set_state(state["priorities"])

    def weights(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns the importance weights `[K, B]`, divided by the largest of their batch."""
        values = self.priorities.tree().leaves[slots]
        smallest = values.min(axis=-1, keepdims=True, initial=np.inf)
        return (smallest / values) ** self._betas(len(slots))

    def _betas(self, num_batches: int) -> NDArray[np.float64]:
        """Returns beta for each of the next batches, `[K, 1]`."""
        if not callable(self.beta):
            return np.full((num_batches, 1), float(self.beta))
        betas = [float(self.beta(self.updates + k)) for k in range(num_batches)]
        for beta in betas:
            check_beta(beta)
        return np.array(betas).reshape(-1, 1)

    def _rows(self, count: int, batch_size: int | None = None) -> Rows:
        self.take_new_rows()
        tree = self.priorities.tree()
        mass = self.rng.random(count)
        if batch_size is None:
            return self.rings.rows(tree.find(mass * tree.total))
        # Ascending masses are found twice as fast. So each of a batch's B strata is cut into K
        # parts with one draw each, and each of the K batches gets one of them, in random order.
        slots = tree.find((mass + np.arange(count)) * (tree.total / count))
        slots = self.rng.permuted(slots.reshape(batch_size, -1), axis=1).T.ravel()
        return self.rings.rows(slots)

    def _choose(self, slots: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        values = self.priorities.tree().leaves[slots]
        return self.rng.choice(len(slots), count, p=values / values.sum())


def check_beta(beta: float) -> None:
    """Raises a `ValueError` unless beta is finite and at least 0."""
    if beta is not None:
        check_number("beta", beta, 0.0)
    else:
        raise ValueError(
            "`beta` must be at least 0, or a function of the number of updates. A file does not "
            f"hold a function: pass it to `load(path, beta=...)`. Received: {beta=}"
        )
