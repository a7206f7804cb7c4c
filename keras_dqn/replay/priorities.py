"""Decides how often each slot of a prioritized buffer is drawn: by its priority or its rank."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay.protocols import Priorities
from keras_dqn.replay.sum_tree import SumTree

_SORTED_AT_ONCE = 10_000
_CHANGED_PART = 20  # above that number, sort again when 1 in 20 has changed


class Proportional:
    """Draws slots in proportion to `priority**alpha`.

    Args:
        num_slots: Int, slots of the buffer.
        alpha: Float, at least 0.

    Reference:
        Schaul et al., 2016, section 3.3, first variant.
    """

    def __init__(self, num_slots: int, alpha: float) -> None:
        self.alpha = alpha
        self.largest = 1.0
        self._tree = SumTree(num_slots)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return self._tree.nbytes

    def tree(self) -> SumTree:
        """Returns the tree to draw from."""
        return self._tree

    def set(self, slots: NDArray[np.int64], priorities: NDArray[np.float64]) -> None:
        """Sets the priorities `[N]` of slots `[N]`; if a slot occurs twice, its last one counts."""
        self.largest = max(self.largest, priorities.max(initial=0.0))
        self._tree.set(slots, priorities**self.alpha)

    def enter(self, slots: NDArray[np.int64], empty: NDArray[np.int64]) -> None:
        """Gives `slots` the largest priority so far, and `empty` slots the priority 0."""
        values = np.zeros(len(slots) + len(empty))
        values[: len(slots)] = self.largest**self.alpha
        self._tree.set(np.concatenate([slots, empty]), values)

    def arrays(self) -> dict[str, NDArray]:
        """Returns the arrays to save, with one entry per slot."""
        return {"priority_value": self._tree.leaves}

    def restored(self) -> None:
        """Computes the rest of the state, after the arrays of `arrays` were changed."""
        self._tree.rebuild()

    def get_state(self) -> dict[str, Any]:
        """Returns the exact state but `largest`: copies of arrays, one entry per slot, and ints."""
        return {"priority_value": self._tree.leaves.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
        self._tree.leaves[:] = state["priority_value"]
        self._tree.rebuild()


class RankBased:
    """Draws slots in proportion to `rank**-alpha`; the largest priority has rank 1.

    Args:
        num_slots: Int, slots of the buffer.
        alpha: Float, at least 0.

    Reference:
        Schaul et al., 2016, section 3.3, second variant, and appendix B.2.1.
    """

    def __init__(self, num_slots: int, alpha: float) -> None:
        self.alpha = alpha
        self.largest = 1.0
        self._priorities = np.zeros(num_slots)  # zero where a slot is empty
        self._ranked = np.zeros(0)  # the priorities of the last sort, negated, ascending
        self._num_changed = 0
        self._tree = SumTree(num_slots)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return self._tree.nbytes + self._priorities.nbytes + self._ranked.nbytes

    def tree(self) -> SumTree:
        """Returns the tree to draw from; sorts again if enough priorities have changed."""
        exact = len(self._ranked) <= _SORTED_AT_ONCE
        if self._num_changed > (0 if exact else len(self._ranked) // _CHANGED_PART):
            self._sort()
        return self._tree

    def set(self, slots: NDArray[np.int64], priorities: NDArray[np.float64]) -> None:
        """Sets the priorities `[N]` of slots `[N]`; if a slot occurs twice, its last one counts."""
        self.largest = max(self.largest, priorities.max(initial=0.0))
        self._write(slots, priorities)

    def enter(self, slots: NDArray[np.int64], empty: NDArray[np.int64]) -> None:
        """Gives `slots` the largest priority so far, and `empty` slots the priority 0."""
        self._write(slots, np.full(len(slots), self.largest))
        self._num_changed += np.count_nonzero(self._priorities[empty])
        self._priorities[empty] = 0.0
        self._tree.set(empty, 0.0)

    def arrays(self) -> dict[str, NDArray]:
        """Returns the arrays to save, with one entry per slot."""
        if self._num_changed:
            self._sort()  # so that the saved buffer and this one agree
        return {"priority": self._priorities}

    def restored(self) -> None:
        """Computes the rest of the state, after the arrays of `arrays` were changed."""
        self._sort()

    def get_state(self) -> dict[str, Any]:
        """Returns the exact state but `largest`: copies of arrays, one entry per slot, and ints."""
        ranked = np.zeros(len(self._priorities))
        ranked[: len(self._ranked)] = -self._ranked
        return {
            "priority": self._priorities.copy(),
            "rank_value": self._tree.leaves.copy(),
            "ranked_priority": ranked,  # of the last sort, descending, then zeros
            "num_changed": int(self._num_changed),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
        self._priorities[:] = state["priority"]
        ranked = state["ranked_priority"]
        self._ranked = -ranked[: np.count_nonzero(ranked)]
        self._num_changed = state["num_changed"]
        self._tree.leaves[:] = state["rank_value"]
        self._tree.rebuild()

    def _write(self, slots: NDArray[np.int64], priorities: NDArray[np.float64]) -> None:
        self._priorities[slots] = priorities
        ranks = 1.0 + self._ranked.searchsorted(-priorities)
        self._tree.set(slots, ranks**-self.alpha)
        self._num_changed += len(slots)

    def _sort(self) -> None:
        filled = np.flatnonzero(self._priorities)
        negated = -self._priorities[filled]
        order = negated.argsort(kind="stable")
        self._ranked = negated[order]
        self._tree.leaves[np.flatnonzero(self._tree.leaves)] = 0.0
        self._tree.leaves[filled[order]] = np.arange(1.0, len(filled) + 1) ** -self.alpha
        self._tree.rebuild()
        self._num_changed = 0


VARIANTS: dict[str, Callable[[int, float], Priorities]] = {
    "proportional": Proportional,
    "rank": RankBased,
}
