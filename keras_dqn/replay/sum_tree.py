"""A sum tree over non-negative numbers, in NumPy: one call sets or finds many leaves."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """A binary tree in an array. Each inner node is the sum of its two children.

    Node 1 is the root. Nodes 2i and 2i + 1 are the children of node i. The leaves are the last
    level, padded with zeros to a power of two.

    Args:
        num_leaves: Int, leaves, at least 1.

    Reference:
        Schaul et al., 2016, "Prioritized Experience Replay", appendix B.2.1.
    """

    def __init__(self, num_leaves: int) -> None:
        self._width = 1 << (num_leaves - 1).bit_length()  # of the last level
        self._nodes = np.zeros(2 * self._width)
        self._end = self._width + num_leaves

    @property
    def leaves(self) -> NDArray[np.float64]:
        """The leaves, `[num_leaves]`, as a new view.

        A stored view would be a separate array in a copy of the tree.
        """
        return self._nodes[self._width : self._end]

    @property
    def total(self) -> float:
        """The sum of all leaves."""
        return float(self._nodes[1])

    @property
    def nbytes(self) -> int:
        """The bytes of all nodes."""
        return self._nodes.nbytes

    def set(self, leaves: NDArray[np.int64], values: NDArray[Any] | float) -> None:
        """Sets leaves `[N]` to values `[N]`; if a leaf occurs twice, its last value counts."""
        nodes = self._nodes
        node = leaves + self._width
        nodes[node] = values
        width = self._width
        while width > 1:
            width //= 2
            if width <= len(leaves):  # a level this small is summed as a whole
                below = nodes[2 * width : 4 * width]
                np.add(below[::2], below[1::2], out=nodes[width : 2 * width])
            else:
                node >>= 1
                left = node << 1
                nodes[node] = nodes[left] + nodes[left | 1]

    def rebuild(self) -> None:
        """Sums all levels again, after `leaves` was changed directly.

        Only nodes that are not zero are written, so empty leaves never take memory.
        """
        inner = self._nodes[1 : self._width]
        inner[np.flatnonzero(inner)] = 0.0
        filled = np.flatnonzero(self.leaves)
        self.set(filled, self.leaves[filled])

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """Returns the leaf of each mass in [0, total), `[N]`; never a leaf that is zero.

        Leaf l has the masses from the sum of the leaves before it to that sum plus its own value.
        """
        nodes = self._nodes
        width = min(self._width, 1 << len(mass).bit_length())
        sums = nodes[width : 2 * width].cumsum()  # all levels above in one step
        node = np.minimum(sums.searchsorted(mass, side="right"), width - 1)
        mass = np.maximum(mass - (sums[node] - nodes[width + node]), 0.0)
        node += width
        while width < self._width:
            width *= 2
            node <<= 1
            left = nodes[node]
            right = mass >= left
            mass -= left * right
            node += right
        # Rounding can lead past the last leaf that is not zero, and nowhere else.
        while (past := nodes[node] == 0.0).any():
            node[past] -= 1
        return node - self._width
