"""Rings of rows on the host, one for each environment: how steps are written."""

import math
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.replay.blocks import Block
from keras_dqn.replay.n_step import BOUNDARY, TERMINATED, TRUNCATED
from keras_dqn.replay.ring_arrays import RingArrays
from keras_dqn.replay.unfinished import AN_ADD, drop_unfinished
from keras_dqn.spaces.observation_spec import Leaf

_BYTES_BESIDE_OBSERVATION = 9  # action, reward and flags
_ROWS_AT_ONCE = 64  # of a block and in each ring: a kill costs that many of the oldest rows


class Rings(RingArrays):
    """Writes steps into rings; `RingArrays` describes the rows and the arguments."""

    def add(
        self,
        observations: list[NDArray],
        actions: list,
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

    def append_rows(self, block: Block, first_env: int) -> NDArray[np.bool_]:
        """Writes a block's rows into the rings of environments `first_env`, `first_env + 1`, ...

        If an episode runs and the block begins at the observation of its head, it goes on (of a
        stack, the newest frame is compared). Otherwise the episode is cut, as in `append`. If the
        frames before the block are missing then, its first stacks become boundary rows.

        Returns:
            `[E]` bool, for each environment of the block whether the rows before its own ones are
            those that its recorder wrote.
        """
        counts, starts = block.counts.tolist(), block.starts.tolist()
        envs = range(first_env, first_env + len(counts))
        follows = [self._follows(env, block, e, starts[e]) for e, env in enumerate(envs)]
        flags = block.flags.copy()
        for e, start in enumerate(starts):
            if self._frame_stack is not None and not follows[e]:
                flags[start + 1 : start + 1 + min(self._frame_stack - 1, counts[e])] |= BOUNDARY
        size = min(_ROWS_AT_ONCE, self.num_rows)
        for done in range(0, max(counts), size):
            rows = [min(count - done, size) for count in counts]
            with self._writing(envs, max(rows) + 1):  # and the observation at the head
                for e, env in enumerate(envs):
                    if rows[e] > 0:
                        if not done and self.runs_list[env]:
                            self._join(env, int(flags[starts[e]]), follows[e])
                        self._copy(env, block, flags, starts[e] + done, rows[e])
        return np.array(follows)

    def end_episodes(self, envs: list[int]) -> None:
        """Cuts the running episodes of environments, as in `append`."""
        with self._writing(envs, AN_ADD):
            for env in envs:
                if self.runs_list[env]:
                    self._close(env)

    def append(
        self,
        env: int,
        observations: list[NDArray],
        action: int | list[int],
        reward: float,
        end: int,
        next_observations: list[NDArray],
    ) -> None:
        """Stores one step of an environment.

        Args:
            env: Int, the environment, e.
            observations: One array `[E, ...]` per leaf; its row `[e]` is stored.
            action: Int or D ints, 0-based.
            reward: Float.
            end: 0, or TERMINATED, TRUNCATED or both.
            next_observations: In the same form.
        """
        slot = self._slot(env)
        runs = self.runs_list[env]
        if not (runs and self._holds(slot, env, observations)):
            if runs:
                slot = self._close(env)
            slot = self._begin(slot, env, observations)
        self.actions[slot] = action
        self.rewards[slot] = reward
        self.num_transitions += 1
        slot = self._advance(env, slot, end)
        self._write_observation(slot, env, next_observations)
        self.runs_list[env] = not end
        if end:
            self._advance(env, slot, BOUNDARY)

    @contextmanager
    def _writing(self, envs: Collection[int], num_rows: int) -> Iterator[None]:
        """Commits what is written inside into up to `num_rows` rows of rings, or takes it back."""
        before = self.heads_list.copy()
        try:
            self._storage.begin(num_rows)
            yield
            self._storage.written(self.heads_list, self.runs_list)
        except BaseException:
            self._take_back(before, num_rows, envs)
            raise

    def _take_back(
        self, heads: list[int], num_rows: int = AN_ADD, envs: Collection[int] | None = None
    ) -> None:
        """Goes back to the heads before a write, without the rows that it can have damaged."""
        _, runs = drop_unfinished(self.flags, heads, self._frame_stack, num_rows, envs)
        self.restore(heads, runs)
        self._storage.written(heads, runs)

    def _slot(self, env: int, rows_from_head: int = 0) -> int:
        return env * self.ring_size + (self.heads_list[env] + rows_from_head) % self.ring_size

    def _holds(self, slot: int, env: int, observations: list[NDArray]) -> bool:
        stack: Any = slot
        if self._frames is not None:
            stack = self.slots(env, self.heads_list[env] + self._frames)
        for i, leaf in enumerate(observations):
            at = stack if self.is_stack[i] else slot
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
            self.observations[i][slot] = leaf[env][frame] if self.is_stack[i] else leaf[env]

    def _close(self, env: int) -> int:
        """Cuts a running episode: its last next observation becomes a boundary row."""
        self.flags[self._slot(env, -1)] |= TRUNCATED
        self.runs_list[env] = False
        return self._advance(env, self._slot(env), BOUNDARY)

    def _advance(self, env: int, slot: int, flags: int) -> int:
        """Commits the head row, and advances the head to the slot of the oldest row."""
        self.flags[slot] = flags
        head = self.heads_list[env] = self.heads_list[env] + 1
        slot = env * self.ring_size + head % self.ring_size
        if head > self.num_rows and self.flags[slot] < BOUNDARY:
            self.num_transitions -= 1
        return slot

    # Blocks

    def _follows(self, env: int, block: Block, e: int, start: int) -> bool:
        ran = bool(block.flags[start] < BOUNDARY)
        if not block.continues[e] or ran != self.runs_list[env]:
            return False
        slot = self._slot(env)
        pairs = zip(self.observations, block.observations, strict=True)
        return not ran or all(ours[slot].tobytes() == b[start].tobytes() for ours, b in pairs)

    def _join(self, env: int, flags_before: int, follows: bool) -> None:
        """Continues or cuts a running episode before the first rows of a block."""
        if follows:
            self.flags[self._slot(env, -1)] |= flags_before & TRUNCATED
        else:
            self._close(env)

    def _copy(
        self, env: int, block: Block, flags: NDArray[np.uint8], start: int, count: int
    ) -> None:
        """Writes `count` rows of a block, from entry `start`, and the observation after them."""
        head = self.heads_list[env]
        stop = head + count - self.num_rows  # rows before leave the ring
        leaving = max(0, min(count, stop))
        for slot, first, last in self._pieces(env, stop - leaving, leaving):
            left = self.flags[slot : slot + last - first]
            self.num_transitions -= int(np.count_nonzero(left < BOUNDARY))
        new = flags[start + 1 : start + 1 + count]
        for slot, first, last in self._pieces(env, head, count + 1):
            for i, leaf in enumerate(block.observations):
                self.observations[i][slot : slot + last - first] = leaf[
                    start + first : start + last
                ]
        for slot, first, last in self._pieces(env, head, count):
            slots, entries = slice(slot, slot + last - first), slice(start + first, start + last)
            self.actions[slots] = block.actions[entries]
            self.rewards[slots] = block.rewards[entries]
            self.flags[slots] = new[first:last]
        self.num_transitions += int(np.count_nonzero(new < BOUNDARY))
        self.heads_list[env] = head + count
        self.runs_list[env] = bool(new[-1] < BOUNDARY)

    def _pieces(self, env: int, row: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yields the first slot of each piece without a wrap, and its rows, counted from `row`."""
        first = row % self.ring_size
        cut = min(count, self.ring_size - first)
        yield env * self.ring_size + first, 0, cut
        if cut < count:
            yield env * self.ring_size, cut, count


def make_rings(
    num_envs: int,
    num_rows: int,
    leaves: list[Leaf],
    frame_stack: int | None,
    storage: Any,
    action_shape: tuple[int, ...] = (),
) -> Rings:
    """Returns `Rings`, or raises an error that says how many bytes they need."""
    row = sum(leaf.dtype.itemsize * math.prod(leaf.row_shape) for leaf in leaves)
    row += _BYTES_BESIDE_OBSERVATION + 4 * (math.prod(action_shape) - 1)
    needed = num_envs * (num_rows + 1) * row
    try:
        if needed > sys.maxsize:
            raise MemoryError("larger than the address space")
        return Rings(num_envs, num_rows, leaves, frame_stack, storage, action_shape)
    except (MemoryError, OSError) as error:  # OSError for files
        raise (MemoryError if isinstance(error, MemoryError) else OSError)(
            f"`capacity` needs {needed:,} bytes, {row:,} for each row. They cannot be allocated "
            f"({error}). Received: capacity={num_envs * num_rows}"
        ) from error
