"""`BlockRecorder`: collects transitions in a process of its own, and gives them away in blocks."""

import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from keras_dqn.arguments import check_bool, check_integer, check_number
from keras_dqn.replay.blocks import Block
from keras_dqn.replay.checks import StepChecks, check_sizes
from keras_dqn.replay.n_step import BOUNDARY
from keras_dqn.replay.ring_arrays import rows_before
from keras_dqn.replay.rings import make_rings
from keras_dqn.replay.storage import Memory
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.observation_spec import ObservationSpec

_VALUES_AT_ONCE = 64  # observations; one size, because each size needs a program of its own

_Rated = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


class BlockRecorder:
    """Stands in for a `ReplayBuffer` in a process that collects: `Collector` adds to it.

    `take_block` returns the rows since its last call, for `ReplayBuffer.add_block` in the process
    that trains. Steps are checked here, as `ReplayBuffer.add` does.

    Args:
        observation_space: As in `ReplayBuffer`.
        action_space: As in `ReplayBuffer`.
        num_envs: Int, environments that step together, E. Defaults to `1`.
        frame_stack: Int or None, as in `ReplayBuffer`. Defaults to `None`.
        max_steps: Int, transitions of each environment that a block can hold, at least 1.
        n_step: Int, environment steps in the returns of the initial TD errors, n, at least 1.
            Defaults to `1`.
        resumes: Bool, whether the first block goes on with the episodes of an earlier recorder.
            The buffer joins them if its last observation is the first one of the block. With
            `frame_stack` it does not: the older frames are not known here. Defaults to `False`.

    Raises:
        ValueError: If a size is outside its range, or a space is of another kind.

    Example:
    >>> from keras_dqn import ReplayBuffer
    >>> spaces = gym.spaces.Box(-1.0, 1.0, (2,)), gym.spaces.Discrete(3)
    >>> recorder = BlockRecorder(*spaces, max_steps=64)
    >>> recorder.add(np.zeros(2), 1, 0.5, False, False, np.ones(2))
    >>> replay = ReplayBuffer(100, *spaces, num_envs=8)
    >>> replay.add_block(recorder.take_block(), first_env=5)
    >>> len(replay)
    1
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        num_envs: int = 1,
        frame_stack: int | None = None,
        max_steps: int,
        n_step: int = 1,
        resumes: bool = False,
    ) -> None:
        sizes = check_sizes(sys.maxsize, num_envs, frame_stack)
        _, self.num_envs, self.frame_stack = sizes
        self.observation_space = observation_space
        self.action_space = action_space
        self.max_steps = check_integer("max_steps", max_steps)
        self.n_step = check_integer("n_step", n_step)
        # Each episode of a block has older frames, its steps and a final observation, unless it
        # began before the block or goes on after it. One of those that began before can be cut.
        frames = self.frame_stack or 1
        self._most_of_a_step = frames + 2  # a cut, the older frames, the step, the end
        self._most_rows = self.max_steps * (frames + 1) + 2
        rows_before_block = self.n_step - 1 + frames - 1
        self._spec = spec = ObservationSpec(observation_space, self.frame_stack)
        self._actions = ActionSpec(action_space)
        self._checks = StepChecks(spec, self._actions, self.num_envs)
        num_rows = self._most_rows + rows_before_block
        leaves, shape = spec.leaves, self._actions.shape
        self._rings = make_rings(self.num_envs, num_rows, leaves, self.frame_stack, Memory(), shape)
        self._resumes = check_bool("resumes", resumes) and frame_stack is None
        self._taken = self._rings.heads()  # the rows before were in blocks
        self._rated = self._rings.heads()  # the rows before have, or had, TD errors

    def __len__(self) -> int:
        """Returns the number of transitions that the next block will hold."""
        heads = self._rings.heads()
        slots = self._rings.slots(*rows_before(heads, heads - self._taken))
        return int(np.count_nonzero(self._rings.flags[slots] < BOUNDARY))

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
        """Stores one step of all environments, as `ReplayBuffer.add` does.

        Raises:
            ValueError: As `ReplayBuffer.add` says.
            RuntimeError: If an environment has taken more than `max_steps` steps since the last
                `take_block`, and its rows have no room. Then nothing changes.
        """
        checked = self._checks.step(
            observation, action, reward, terminated, truncated, next_observation, where
        )
        stepped = checked[-1]
        for e, head in enumerate(self._rings.heads_list):
            rows = head - self._taken[e] + self._most_of_a_step
            if rows > self._most_rows and (stepped is None or stepped[e]):
                raise RuntimeError(
                    f"`add` was called for more than `max_steps` steps of environment {e}: call "
                    f"`take_block` before. Received: max_steps={self.max_steps}"
                )
        self._rings.add(*checked)

    def take_block(
        self, values: Callable[[Any], NDArray] | None = None, gamma: float = 0.99
    ) -> Block:
        """Returns the rows since the last call, and the initial TD errors of transitions.

        ```
        |reward + discount * max_a values(next_observation)[a] - values(observation)[action]|
        ```

        A transition gets its TD error when its window of n steps is complete, as
        `ReplayBuffer.sample` says: so some are those of earlier blocks. Without `values`, a window
        waits for the next call with `values`, and gets no TD error if its rows are gone by then.

        Args:
            values: Function of observations `[64, ...]` (or a dict of arrays) that returns action
                values `[64, A]`, or None for no TD errors. Defaults to `None`.
            gamma: Float in [0, 1], the discount of one environment step. Defaults to `0.99`.

        Raises:
            ValueError: If `gamma` is outside its range, or the values have another shape. Then the
                rows stay for the next call.

        Reference:
            Horgan et al., 2018, "Distributed Prioritized Experience Replay", section 3.
        """
        check_number("gamma", gamma, 0.0, 1.0)
        rings, heads = self._rings, self._rings.heads()
        rated, next_rated = (None, self._rated) if values is None else self._rate(values, gamma)
        env, row = rows_before(heads + 1, heads - self._taken + 1)
        slots = rings.slots(env, row)
        flags = rings.flags[rings.slots(env, row - 1)]
        resumes = self._resumes & (self._taken == 0) & (heads > 0)
        flags[row == 0] = np.where(resumes[env[row == 0]], 0, BOUNDARY)  # no row is before
        block = Block(
            counts=heads - self._taken,
            observations=[leaf.take(slots, axis=0) for leaf in rings.observations],
            actions=rings.actions[slots],
            rewards=rings.rewards[slots],
            flags=flags,
            continues=(self._taken > 0) | resumes,
            runs=np.array(rings.runs_list),
            num_transitions=len(self),
            rated=rated,
        )
        self._taken, self._rated = heads, next_rated
        return block

    def _rate(
        self, values: Callable[[Any], NDArray], gamma: float
    ) -> tuple[_Rated, NDArray[np.int64]]:
        """Returns the TD errors of all new windows, and the first rows that still wait."""
        rings, heads = self._rings, self._rings.heads()
        oldest = heads - rings.num_rows + (self.frame_stack or 1) - 1  # with all older frames
        env, row = rows_before(heads, heads - np.maximum(self._rated, oldest))
        starts = rings.flags[rings.slots(env, row)] < BOUNDARY
        env, row = env[starts], row[starts]
        window = rings.windows(env, row, gamma, self.n_step)
        waiting = np.bincount(env[~window.complete], minlength=len(heads))  # the last rows
        env, row = env[window.complete], row[window.complete]
        td_error = self._td_error(values, env, row, gamma)
        return (env, heads[env] - row, td_error), heads - waiting

    def _td_error(
        self,
        values: Callable[[Any], NDArray],
        env: NDArray[np.int64],
        row: NDArray[np.int64],
        gamma: float,
    ) -> NDArray[np.float64]:
        """Returns the absolute TD errors of complete windows `[P]`, summed over branches."""
        rings, slots, count = self._rings, self._rings.slots(env, row), len(row)
        window = rings.windows(env, row, gamma, self.n_step)
        env, row = np.concatenate([env, env]), np.concatenate([row, row + window.steps])
        padding = np.zeros(-len(row) % _VALUES_AT_ONCE, np.int64)
        chosen = np.concatenate([np.arange(len(row)), padding])
        found = [np.zeros((0, *self._actions.values_shape))]
        for batch in chosen.reshape(-1, _VALUES_AT_ONCE):
            found.append(np.asarray(values(self._spec.pack(rings.take(env[batch], row[batch])))))
            self._actions.check_values(found[-1], _VALUES_AT_ONCE)
        q_values = np.concatenate(found, dtype=np.float64)
        now, then = q_values[:count], q_values[count : 2 * count]
        best = then.max(axis=-1)
        taken = np.take_along_axis(now, rings.actions[slots][..., None], axis=-1)[..., 0]
        if self._actions.shape:  # as for the agent: the mean over branches
            best = best.mean(axis=1)
        best = np.where(np.isneginf(best), 0.0, best)  # no action is allowed
        target = window.reward + window.discount * best
        if not self._actions.shape:
            return np.abs(target - taken)
        return np.abs(target[:, None] - taken).sum(axis=1)
