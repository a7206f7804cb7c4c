"""Action masks in Dict observations: `[E, A]` integer, 0 where an action is forbidden.

With D branches, masks are `[E, D, A]`. The mask is a part of the observation wherever that is kept
or moved. A network gets the rest.
"""

import functools
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

_FORBIDDEN = np.float32(-np.inf)  # so that float32 stays float32 in NumPy 1 too


def without_mask(observation: Any, key: str | None) -> Any:
    """Returns what a network gets: the observation without its mask.

    If the rest is the entry `"observation"` alone, that entry is returned. An observation that has
    no such key is returned unchanged.

    Args:
        observation: An observation of any kind, or its shapes.
        key: String, the mask's key, or None for no mask.
    """
    if key is None or not isinstance(observation, dict) or key not in observation:
        return observation
    if len(observation) == 2 and "observation" in observation:
        return observation["observation"]
    return {name: value for name, value in observation.items() if name != key}


def mask_of(observation: Any, key: str) -> Any:
    """Returns the mask of an observation, `[B, A]` integer.

    Raises:
        ValueError: If the observation is not a dict with this key.
    """
    if not isinstance(observation, dict) or key not in observation:
        received = sorted(observation) if isinstance(observation, dict) else type(observation)
        raise ValueError(
            f"`observation` must be a dict with the action mask {key!r}. Received: {received}"
        )
    return observation[key]


def forbid(values: NDArray, mask: Any) -> NDArray:
    """Returns a copy of action values `[E, A]` with -inf where the mask `[E, A]` is 0."""
    mask = np.asarray(mask)
    if mask.shape != values.shape:
        raise ValueError(
            f"The action mask must have the shape of the action values, {values.shape}. Received: "
            f"shape={mask.shape}"
        )
    values = values.copy()
    values[mask == 0] = -np.inf  # twice as fast as `np.where` for a few numbers
    return values


def forbid_missing(values: NDArray, branch_sizes: tuple[int, ...] | None) -> NDArray:
    """Returns action values `[..., D, A]` with -inf where a branch has fewer than A actions.

    Args:
        values: `[..., D, A]`.
        branch_sizes: The actions of each branch, D ints, or None if all have A.
    """
    if branch_sizes is None:
        return values
    return np.where(existing_actions(branch_sizes), values, _FORBIDDEN)


@functools.cache
def existing_actions(branch_sizes: tuple[int, ...]) -> NDArray[np.bool_]:
    """Returns `[D, A]`, whether a branch has an action; A is the largest of the D sizes."""
    return np.arange(max(branch_sizes)) < np.array(branch_sizes)[:, None]


def check_some_allowed(mask: Any, needed: NDArray[np.bool_] | None = None) -> None:
    """Raises a `ValueError` if a mask leaves no action where one must be chosen.

    Args:
        mask: `[E, A]`, or `[E, D, A]` for D branches, integer; `[A]` for one observation.
        needed: `[E]` bool, True where an action must be chosen, or None for all. Defaults to
            `None`.
    """
    some = (np.asarray(mask) != 0).any(axis=-1)
    some = some.reshape(len(some), -1).all(axis=-1) if some.ndim else some  # over all branches
    empty = ~some if needed is None else ~some & needed
    if empty.any():
        raise ValueError(
            "The action mask must allow at least one action where one must be chosen. Received: "
            f"only zeros in the rows {np.flatnonzero(empty).tolist()}"
        )


def check_mask_space(space: gym.Space, key: str, shape: tuple[int, ...]) -> None:
    """Raises a `ValueError` unless a space has a mask of all actions, `(A,)` or `(D, A)`."""
    mask = space.spaces.get(key) if isinstance(space, gym.spaces.Dict) else None
    is_mask = isinstance(mask, (gym.spaces.Box, gym.spaces.MultiBinary)) and (
        mask.shape == shape and np.dtype(mask.dtype).kind in "iu"
    )
    if not is_mask:
        raise ValueError(
            f"`action_mask` must be the key of an entry Box(0, 1, {shape}, int8) in a "
            "Dict observation space; `keras_dqn.ActionMaskObservation(env)` makes one from "
            f'`info["action_mask"]`. Received: action_mask={key!r}, observation_space={space}'
        )
