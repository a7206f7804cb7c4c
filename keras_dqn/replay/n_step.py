"""Finds windows of n steps in the rows of rings; NumPy arrays have one entry per start, `[B]`."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TERMINATED, TRUNCATED, BOUNDARY = 1, 2, 4
_ENDS = TERMINATED | TRUNCATED


class Windows(NamedTuple):
    """The windows that begin at the starts; all arrays are `[B]`.

    Attributes:
        complete: bool, whether n steps are stored, or fewer because the episode ended.
        reward: float64, the discounted sum of the rewards of the m steps taken.
        discount: float64, `gamma**m * (1 - terminated)`.
        steps: int64, environment steps really taken, m.
    """

    complete: NDArray[np.bool_]
    reward: NDArray[np.float64]
    discount: NDArray[np.float64]
    steps: NDArray[np.int64]


def windows(
    flags: NDArray[np.uint8],
    rewards: NDArray[np.float32],
    base: NDArray[np.int64],
    row: NDArray[np.int64],
    head: NDArray[np.int64],
    ring_size: int,
    gamma: float,
    n_step: int,
) -> Windows:
    """Walks n steps from each start, and stops after a terminated or truncated step.

    ```
    reward   = r_0 + gamma r_1 + ... + gamma^(m-1) r_(m-1)
    discount = gamma^m if the m-th step did not terminate, else 0
    ```

    Args:
        flags: `[E * R]` uint8, TERMINATED, TRUNCATED and BOUNDARY of each slot.
        rewards: `[E * R]` float32, the reward of the step from each slot to the next.
        base: `[B]` int64, the first slot of each start's ring.
        row: `[B]` int64, the start's row, counted from the first one ever written.
        head: `[B]` int64, the row after the last complete step of the start's ring.
        ring_size: Int, slots in a ring, R.
        gamma: Float in [0, 1], the discount of one environment step.
        n_step: Int, environment steps in a window, n, at least 1.

    Returns:
        The `Windows`. Where `complete` is False, the other entries mean nothing.

    Reference:
        Sutton & Barto, 2018, "Reinforcement Learning", equation 7.1; partial windows at the end of
        an episode as in Pardo et al., 2018, "Time Limits in Reinforcement Learning".
    """
    slot = base + row % ring_size
    flag = flags[slot]
    complete = flag < BOUNDARY
    reward = rewards[slot].astype(np.float64)
    steps = np.ones(len(row), np.int64)
    last = flag
    runs = (flag & _ENDS) == 0
    for step in range(1, n_step):
        complete &= ~runs | (row + step < head)
        slot = base + (row + step) % ring_size
        reward += np.where(runs, gamma**step * rewards[slot], 0.0)
        last = np.where(runs, flags[slot], last)
        steps += runs
        runs &= ((last & _ENDS) == 0) & complete
        if not runs.any():
            break
    powers = gamma ** np.arange(steps.max(initial=0) + 1)
    discount = np.where(last & TERMINATED, 0.0, powers[steps])
    return Windows(complete, reward, discount, steps)
