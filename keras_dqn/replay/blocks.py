"""`Block`: rows of several environments in a few arrays, to send from one process to another."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_dqn.arguments import check_integer, check_type
from keras_dqn.replay.n_step import BOUNDARY, TERMINATED, TRUNCATED


class Block(NamedTuple):
    """Consecutive rows of E environments, one environment after the other.

    A row is a row of `RingArrays`. N is the number of rows, the sum of `counts`. The arrays of the
    rows have N + E entries. With frame stacks, an observation is the newest frame alone.

    Attributes:
        counts: `[E]` int64, rows of each environment.
        observations: List of `[N + E, ...]`, one array per leaf: for each environment the
            observations of its rows, then that at its head. It means nothing if no episode runs.
        actions: `[N + E]` (or `[N + E, D]`) int32, 0-based. The entry at a head means nothing.
        rewards: `[N + E]` float32. The entry at a head means nothing.
        flags: `[N + E]` uint8, TERMINATED, TRUNCATED and BOUNDARY: for each environment those of
            the row before the block, then those of its rows. The row before can have become
            truncated since it was sent.
        continues: `[E]` bool, whether the first row follows a row of an earlier block.
        runs: `[E]` bool, whether the episode of the last row goes on.
        num_transitions: Int, transitions that start in the rows.
        rated: None, or `(env, rows_before_head, td_error)`, each `[P]`: int64 environments of the
            block, int64 distances of starts from the head after the block, and float absolute TD
            errors. A start can be in an earlier block.
    """

    counts: NDArray[np.int64]
    observations: list[NDArray]
    actions: NDArray[np.int32]
    rewards: NDArray[np.float32]
    flags: NDArray[np.uint8]
    continues: NDArray[np.bool_]
    runs: NDArray[np.bool_]
    num_transitions: int
    rated: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]] | None = None

    @property
    def starts(self) -> NDArray[np.int64]:
        """The entry of each environment's first row, `[E]` int64."""
        return self.counts.cumsum() - self.counts + np.arange(len(self.counts))


def check_block(
    block: Any, first_env: Any, num_envs: int, arrays: dict[str, NDArray], action_sizes: Any
) -> int:
    """Checks that a block fits a buffer, and returns `first_env` as an int.

    The numbers of the observations are not checked again.

    Args:
        block: The block.
        first_env: Int, the buffer's environment that is the first one of the block.
        num_envs: Int, environments of the buffer.
        arrays: Dict of the buffer's arrays, with one entry per slot.
        action_sizes: `ActionSpec.sizes`.

    Raises:
        TypeError: If `block` is no `Block`, or `first_env` no integer.
        ValueError: If the block does not fit the buffer, or no recorder makes such a block.
    """
    check_type("block", block, Block, "a Block, as `BlockRecorder.take_block` returns it")
    first_env = check_integer("first_env", first_env, 0)
    num_own = np.size(block.counts)
    _check_array("counts", block.counts, np.int64, (num_own,))
    if not num_own or (block.counts < 0).any():
        raise _refusal("counts", "0 or more rows for each environment", block.counts.tolist())
    if first_env + num_own > num_envs:
        raise ValueError(
            "`first_env` must leave room for all environments of the block. Received: "
            f"{first_env=}, {num_own} environments in the block, {num_envs} in the buffer"
        )
    _check_rows(block, arrays, action_sizes)
    _check_ends(block)
    if block.rated is not None:
        _check_rated(block.rated, num_own)
    return first_env


def _check_rows(block: Block, arrays: dict[str, NDArray], action_sizes: Any) -> None:
    names = [f"observations[{i}]" for i in range(len(block.observations))]
    names += ["actions", "rewards", "flags"]
    given = [*block.observations, block.actions, block.rewards, block.flags]
    if len(given) != len(arrays):
        wanted = f"{len(arrays) - 3} arrays, one for each of the buffer's"
        raise _refusal("observations", wanted, f"{len(block.observations)}")
    entries = int(block.counts.sum()) + len(block.counts)
    for name, value, array in zip(names, given, arrays.values(), strict=True):
        _check_array(name, value, array.dtype, (entries, *array.shape[1:]))
    if (block.actions < 0).any() or (block.actions >= action_sizes).any():
        raise _refusal("actions", f"in [0, {action_sizes})", block.actions.tolist())
    if not np.isfinite(block.rewards).all():
        raise _refusal("rewards", "finite", block.rewards.tolist())
    if (block.flags > TERMINATED | TRUNCATED | BOUNDARY).any():
        raise _refusal("flags", "the flags of rows", block.flags.tolist())


def _check_ends(block: Block) -> None:
    for name in ("continues", "runs"):
        _check_array(name, getattr(block, name), np.bool_, block.counts.shape)
    starts_one = block.flags < BOUNDARY
    runs = starts_one[block.starts + block.counts]
    if (block.runs != runs).any():
        raise _refusal("runs", f"{runs.tolist()} for its flags", block.runs.tolist())
    starts_one[block.starts] = False  # the rows before the block
    if block.num_transitions != (wanted := np.count_nonzero(starts_one)):
        raise _refusal("num_transitions", f"{wanted} for its flags", block.num_transitions)


def _check_rated(rated: tuple[NDArray, NDArray, NDArray], num_envs: int) -> None:
    env, rows_before_head, td_error = rated
    _check_array("rated[0]", env, np.int64, (np.size(env),))
    _check_array("rated[1]", rows_before_head, np.int64, env.shape)
    if np.shape(td_error) != env.shape or np.asarray(td_error).dtype.kind != "f":
        raise _refusal("rated[2]", f"float {env.shape}", td_error)
    if (env < 0).any() or (env >= num_envs).any() or (rows_before_head < 1).any():
        raise _refusal("rated", "of rows of the block's environments", (env, rows_before_head))
    if not np.isfinite(td_error).all():
        raise _refusal("rated[2]", "finite", td_error.tolist())


def _check_array(name: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(value, np.ndarray) or (value.dtype, value.shape) != (np.dtype(dtype), shape):
        received = getattr(value, "dtype", type(value).__name__)
        raise _refusal(name, f"{np.dtype(dtype)} {shape}", f"{received} {np.shape(value)}")


def _refusal(name: str, wanted: str, received: Any) -> ValueError:
    text = " ".join(str(received).split())
    short = text if len(text) <= 200 else f"{text[:197]}..."
    return ValueError(f"`block.{name}` must be {wanted}. Received: {short}")
