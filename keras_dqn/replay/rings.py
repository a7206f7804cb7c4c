"""Rings of rows on the host, one for each environment: how steps are written."""

import math
import sys
from typing import Any

from numpy.typing import NDArray

from keras_dqn.replay.n_step import BOUNDARY, TERMINATED, TRUNCATED
from keras_dqn.replay.ring_arrays import RingArrays
from keras_dqn.replay.unfinished import drop_unfinished
from keras_dqn.spaces.observation_spec import Leaf

_BYTES_BESIDE_OBSERVATION = 9  # action, reward and flags


class Rings(RingArrays):
    """Writes steps into rings; `RingArrays` describes the rows and the arguments."""

    def add(
        self,
        observations: list[NDArray],
        actions: list[int],
        rewards: list[float],
        terminated: list[bool],
        truncated: list[bool],
        next_observations: list[NDArray],
        stepped: list[bool] | None,
    ) -> None:
        """Stores one step of all environments, as `StepChecks.step` returns it."""
        heads, runs, append = self.heads_list, self.runs_list, self.append
        before = heads.copy()
        try:
            self._storage.begin()
            for e in range(len(heads)):
                if stepped is None or stepped[e]:
                    end = terminated[e] * TERMINATED | truncated[e] * TRUNCATED
                    append(e, observations, actions[e], rewards[e], end, next_observations)
            self._storage.written(heads, runs)
        except BaseException:  # such as Ctrl-C: half a transition must not stay
            self._take_back(before)
            raise

    def append(
        self,
        env: int,
        observations: list[NDArray],
        action: int,
        reward: float,
        end: int,
        next_observations: list[NDArray],
    ) -> None:
        """Stores one step of an environment.

        Args:
            env: Int, the environment, e.
            observations: One array `[E, ...]` per leaf; its row `[e]` is stored.
            action: Int, 0-based.
            reward: Float.
            end: 0, or TERMINATED, TRUNCATED or both.
            next_observations: In the same form.
        """
        slot = self._slot(env)
        runs = self.runs_list[env]
        if not (runs and self._holds(slot, env, observations)):
            if runs:
                self.flags[self._slot(env, -1)] |= TRUNCATED
                slot = self._advance(env, slot, BOUNDARY)
            slot = self._begin(slot, env, observations)
        self.actions[slot] = action
        self.rewards[slot] = reward
        self.num_transitions += 1
        slot = self._advance(env, slot, end)
        self._write_observation(slot, env, next_observations)
        self.runs_list[env] = not end
        if end:
            self._advance(env, slot, BOUNDARY)

    def _take_back(self, heads: list[int]) -> None:
        """Goes back to the heads before an `add`, without the rows that it can have damaged."""
        _, runs = drop_unfinished(self.flags, heads, self._frame_stack)
        self.restore(heads, runs)
        self._storage.written(heads, runs)

    def _slot(self, env: int, rows_from_head: int = 0) -> int:
        return env * self.ring_size + (self.heads_list[env] + rows_from_head) % self.ring_size

    def _holds(self, slot: int, env: int, observations: list[NDArray]) -> bool:
        at: Any = slot
        if self._frames is not None:
            at = self.slots(env, self.heads_list[env] + self._frames)
        for i, leaf in enumerate(observations):
            if self.observations[i][at].tobytes() != leaf[env].tobytes():
                return False
        return True

    def _begin(self, slot: int, env: int, observations: list[NDArray]) -> int:
        """Writes the first observation of an episode."""
        if self._frame_stack is not None:
            for frame in range(self._frame_stack - 1):
                self._write_observation(slot, env, observations, frame)
                slot = self._advance(env, slot, BOUNDARY)
        self._write_observation(slot, env, observations)
        return slot

    def _write_observation(
        self, slot: int, env: int, observations: list[NDArray], frame: int = -1
    ) -> None:
        for i, leaf in enumerate(observations):
            self.observations[i][slot] = leaf[env] if self._frames is None else leaf[env][frame]

    def _advance(self, env: int, slot: int, flags: int) -> int:
        """Commits the head row, and advances the head to the slot of the oldest row."""
        self.flags[slot] = flags
        head = self.heads_list[env] = self.heads_list[env] + 1
        slot = env * self.ring_size + head % self.ring_size
        if head > self.num_rows and self.flags[slot] < BOUNDARY:
            self.num_transitions -= 1
        return slot


def make_rings(
    num_envs: int, num_rows: int, leaves: list[Leaf], frame_stack: int | None, storage: Any
) -> Rings:
    """Returns `Rings`, or raises an error that says how many bytes they need."""
    row = sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in leaves)
    row = row // (frame_stack or 1) + _BYTES_BESIDE_OBSERVATION
    needed = num_envs * (num_rows + 1) * row
    try:
        if needed > sys.maxsize:
            raise MemoryError("larger than the address space")
        return Rings(num_envs, num_rows, leaves, frame_stack, storage)
    except (MemoryError, OSError) as error:  # OSError for files
        raise (MemoryError if isinstance(error, MemoryError) else OSError)(
            f"`capacity` needs {needed:,} bytes, {row:,} for each row. They cannot be allocated "
            f"({error}). Received: capacity={num_envs * num_rows}"
        ) from error
