"""Makes a `Block` of the arrays of a whole episode."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.arguments import check_bool
from keras_dqn.replay.blocks import Block
from keras_dqn.replay.checks import StepChecks
from keras_dqn.replay.n_step import BOUNDARY, TERMINATED, TRUNCATED
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.observation_spec import ObservationSpec


def episode_block(
    spec: ObservationSpec,
    action_spec: ActionSpec,
    observations: Any,
    actions: Any,
    rewards: Any,
    terminated: Any,
) -> Block:
    """Returns the rows of an episode: its older frames, its T steps and its final observation.

    Args:
        spec: Of one observation.
        action_spec: Of one action.
        observations: As in `ReplayBuffer.add_episode`.
        actions: As there.
        rewards: As there.
        terminated: As there.

    Raises:
        TypeError: If `terminated` is not a bool.
        ValueError: As `ReplayBuffer.add_episode` says.
    """
    end = TERMINATED if check_bool("terminated", terminated) else TRUNCATED
    num_steps = _num_steps(observations, actions, rewards)
    stored = spec.check("observations", observations, num_steps + 1)
    numbers, rewards = StepChecks(spec, action_spec, num_steps).episode(stored, actions, rewards)
    older = max((leaf.shape[0] - 1 for leaf in spec.leaves if leaf.is_stack), default=0)
    flags = [BOUNDARY] * (1 + older) + [0] * (num_steps - 1) + [end, BOUNDARY]
    filling = (older, 2)  # the final observation and the head have no action
    return Block(
        counts=np.array([older + num_steps + 1]),
        observations=[
            _rows(array, leaf.is_stack, older)
            for array, leaf in zip(stored, spec.leaves, strict=True)
        ],
        actions=np.pad(numbers, [filling, (0, 0)][: numbers.ndim]),
        rewards=np.pad(rewards, filling),
        flags=np.array(flags, np.uint8),
        continues=np.zeros(1, bool),
        runs=np.zeros(1, bool),
        num_transitions=num_steps,
    )


def _num_steps(observations: Any, actions: Any, rewards: Any) -> int:
    shape = np.shape(rewards)
    if len(shape) != 1 or not shape[0]:
        raise ValueError(
            "`rewards` must have shape [T], one entry for each of T steps, at least one. Received: "
            f"{shape=}"
        )
    sizes = {"actions": (actions, shape[0]), "observations": (observations, shape[0] + 1)}
    for name, (value, size) in sizes.items():
        received = {np.shape(array)[:1] for array in _leaves(value)}
        if received != {(size,)}:
            raise ValueError(
                f"`{name}` must have {size} entries on the first axis for {shape[0]} rewards: "
                "observations are those before each step and the final one. Received: "
                f"{sorted(n for axis in received for n in axis)}"
            )
    return shape[0]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value


def _rows(array: NDArray, is_stack: bool, older: int) -> NDArray:
    """Returns what rows hold, `[older + T + 2, ...]`; the last one, at the head, means nothing."""
    first = array[0, :older] if is_stack else np.repeat(array[:1], older, axis=0)
    rest = array[:, -1] if is_stack else array
    return np.concatenate([first, rest, rest[-1:]])
