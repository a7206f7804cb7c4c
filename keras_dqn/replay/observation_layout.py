"""How observations of a space are stored: one array a leaf, leading axis `[E]` (environments)."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

_TENSOR_SPACES = (gym.spaces.Box, gym.spaces.MultiBinary, gym.spaces.MultiDiscrete)


class Leaf:
    """One array of an observation: a Box, MultiBinary, MultiDiscrete or Discrete space.

    Args:
        name: String, the path in a Dict space as it is written in errors; empty for the space itself.
        space: The Gymnasium space.
    """

    def __init__(self, name: str, space: gym.Space) -> None:
        self.name = name
        self.space = space
        discrete = isinstance(space, gym.spaces.Discrete)
        self.shape: tuple[int, ...] = () if discrete else tuple(space.shape or ())
        self.dtype = np.dtype(np.int32) if discrete else np.dtype(space.dtype)
        self._can_be_nan = self.dtype.kind in "fc"
        self._warned = not isinstance(space, gym.spaces.Box) or not (
            space.is_bounded("below") or space.is_bounded("above") or self._has_a_bound(space)
        )

    @staticmethod
    def _has_a_bound(space: gym.spaces.Box) -> bool:
        return bool(space.bounded_below.any() or space.bounded_above.any())

    def check(self, argument: str, value: Any, num_envs: int) -> NDArray:
        """Returns `[E, ...]` of the leaf's dtype, or raises what is wrong with `value`."""
        array = np.asarray(value)
        if array.dtype != self.dtype and not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise ValueError(
                f"`{argument}{self.name}` must have a dtype that casts to {self.dtype} within its "
                f"kind. Received: dtype={array.dtype}"
            )
        if array.shape != (num_envs, *self.shape):
            raise ValueError(
                f"`{argument}{self.name}` must have shape {(num_envs, *self.shape)}: the number of "
                f"environments, then the space's shape. Received: shape={array.shape}"
            )
        if self._can_be_nan and not np.isfinite(array).all():
            raise ValueError(f"`{argument}{self.name}` must be finite. Received: {value}")
        self._check_bounds(argument, array)
        return array

    def _check_bounds(self, argument: str, array: NDArray) -> None:
        space = self.space
        if isinstance(space, gym.spaces.Discrete):
            if (array < space.start).any() or (array >= space.start + space.n).any():
                raise ValueError(
                    f"`{argument}{self.name}` must be in {space}. Received: {array.tolist()}"
                )
        elif not self._warned and ((array < space.low) | (array > space.high)).any():  # type: ignore[attr-defined]
            self._warned = True
            warnings.warn(
                f"`{argument}{self.name}` is outside the bounds of {space}; it is stored as it is. "
                f"Received: {array.tolist()}",
                stacklevel=4,
            )


class ObservationLayout:
    """The leaves of an observation space, in a fixed order, and the way there and back.

    Args:
        space: A Gymnasium space of numbers, or a (nested) Dict of such spaces.

    Raises:
        ValueError: If the space holds anything else (Text, Sequence, Graph, Tuple).
    """

    def __init__(self, space: gym.Space) -> None:
        self.space = space
        self.leaves = _leaves(space, "")
        self._single = not isinstance(space, gym.spaces.Dict)

    def check(self, argument: str, observation: Any, num_envs: int) -> list[NDArray]:
        """Returns one `[E, ...]` array a leaf, or raises what does not fit the space."""
        if self._single:
            return [self.leaves[0].check(argument, observation, num_envs)]
        values = _flatten(self.space, observation, argument)
        return [
            leaf.check(argument, value, num_envs)
            for leaf, value in zip(self.leaves, values, strict=True)
        ]

    def pack(self, arrays: list[NDArray]) -> Any:
        """Returns the (nested dict of) arrays that the space's observations are made of."""
        return _pack(self.space, iter(arrays))


def add_axis(observation: Any) -> Any:
    """Returns an observation with a leading axis of one environment."""
    if isinstance(observation, dict):
        return {key: add_axis(value) for key, value in observation.items()}
    return np.asarray(observation)[None]


def _leaves(space: gym.Space, name: str) -> list[Leaf]:
    if isinstance(space, gym.spaces.Dict):
        return [leaf for key, sub in space.items() for leaf in _leaves(sub, f"{name}[{key!r}]")]
    if isinstance(space, (*_TENSOR_SPACES, gym.spaces.Discrete)):
        return [Leaf(name, space)]
    raise ValueError(
        "`observation_space` must be a Box, Discrete, MultiBinary or MultiDiscrete space or a "
        f"Dict of them. Received: observation_space{name}={space}"
    )


def _flatten(space: gym.Space, observation: Any, path: str) -> list[Any]:
    if not isinstance(space, gym.spaces.Dict):
        return [observation]
    if not isinstance(observation, dict) or observation.keys() != space.spaces.keys():
        received = sorted(observation) if isinstance(observation, dict) else type(observation)
        raise ValueError(
            f"`{path}` must be a dict with the keys {list(space.spaces)}. Received: {received}"
        )
    return [
        leaf
        for key, sub in space.items()
        for leaf in _flatten(sub, observation[key], f"{path}[{key!r}]")
    ]


def _pack(space: gym.Space, arrays: Any) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {key: _pack(sub, arrays) for key, sub in space.items()}
    return next(arrays)
