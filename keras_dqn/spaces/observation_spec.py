"""Describes how observations are stored: one array per leaf, first axis `[E]` (environments)."""

import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

_TENSOR_SPACES = (gym.spaces.Box, gym.spaces.MultiBinary, gym.spaces.MultiDiscrete)


class Leaf:
    """One array of an observation: a Box, MultiBinary, MultiDiscrete or Discrete space.

    Args:
        name: String, the path in a Dict or Tuple space, for errors; empty for the space itself.
        space: The Gymnasium space.

    Attributes:
        is_stack: Bool, whether the first axis is that of stacked frames.
    """

    def __init__(self, name: str, space: gym.Space) -> None:
        self.name = name
        self.space = space
        discrete = isinstance(space, gym.spaces.Discrete)
        self.shape: tuple[int, ...] = () if discrete else tuple(space.shape or ())
        self.is_stack = False
        self.dtype = np.dtype(np.int32) if discrete else np.dtype(space.dtype)
        self._low, self._high = _bounds(space)
        self._takes_any_value = _takes_any_value(space)
        self._unbounded = isinstance(space, gym.spaces.Box) and bool(
            np.isneginf(space.low).all() and np.isposinf(space.high).all()
        )
        self._expected = (1, *self.shape)  # with the axis of environments of the last call
        self._largest_byte = _largest_byte(space)
        self._warned = False
        self._passed = b""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of what is stored for one step: the newest frame of a stack."""
        return self.shape[1:] if self.is_stack else self.shape

    def check(self, argument: str, value: Any, num_envs: int) -> NDArray:
        """Returns `value` as `[E, ...]` of the leaf's dtype, or raises a `ValueError`."""
        array = np.asarray(value)
        if array.dtype != self.dtype:
            array = self._cast(argument, array)
        if array.shape != self._expected or num_envs != self._expected[0]:
            self._expected = (num_envs, *self.shape)
        if array.shape != self._expected:
            raise ValueError(
                f"`{argument}{self.name}` must have shape {(num_envs, *self.shape)}: one entry "
                "for each environment (or step), of the space's shape. Received: "
                f"shape={array.shape}"
            )
        if self._takes_any_value:
            return array
        content = array.tobytes()
        if content != self._passed:  # most observations equal the last step's next observation
            if self._largest_byte is None or max(content) > self._largest_byte:
                inside = np.isfinite(array) if self._unbounded else self._is_inside(array)
                if np.count_nonzero(inside) < inside.size:
                    self._refuse_or_warn(argument, array)
            self._passed = content
        return array

    def _is_inside(self, array: NDArray) -> NDArray[np.bool_]:
        return (array >= self._low) & (array <= self._high)

    def _cast(self, argument: str, array: NDArray) -> NDArray:
        if not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise ValueError(
                f"`{argument}{self.name}` must have a dtype that casts to {self.dtype} by "
                f"NumPy's rule 'same_kind'. Received: dtype={array.dtype}"
            )
        with np.errstate(over="ignore"):  # the result is infinite, and is refused
            cast = array.astype(self.dtype)
        if self.dtype.kind in "iu" and (cast != array).any():
            raise ValueError(
                f"`{argument}{self.name}` must fit into {self.dtype}. Received: {array.tolist()}"
            )
        return cast

    def _refuse_or_warn(self, argument: str, array: NDArray) -> None:
        if not np.isfinite(array).all():
            raise ValueError(f"`{argument}{self.name}` must be finite. Received: {array.tolist()}")
        if not isinstance(self.space, gym.spaces.Box):
            raise ValueError(
                f"`{argument}{self.name}` must be in {self.space}. Received: {array.tolist()}"
            )
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"`{argument}{self.name}` is outside the bounds of {self.space}; it is stored as "
                f"it is. Received: {array.tolist()}",
                stacklevel=6,  # the caller of `ReplayBuffer.add`
            )


def _bounds(space: Any) -> tuple[Any, Any]:
    """Returns the smallest and largest number of a space, both finite: NaN and inf are outside."""
    if isinstance(space, gym.spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, gym.spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, gym.spaces.MultiBinary):
        return 0, 1
    if space.dtype.kind == "f":
        largest = np.finfo(space.dtype).max
        return np.maximum(space.low, -largest), np.minimum(space.high, largest)
    return space.low, space.high


def _largest_byte(space: Any) -> int | None:
    """Returns n if what is inside the space are the bytes 0 to n: Python finds the largest fast."""
    if isinstance(space, gym.spaces.MultiBinary):
        return 1
    is_bytes = isinstance(space, gym.spaces.Box) and space.dtype.kind in "iu"
    if not is_bytes or space.dtype.itemsize > 1 or not 0 < math.prod(space.shape) <= 64:
        return None
    return int(space.high.min()) if not space.low.any() and np.ptp(space.high) == 0 else None


def _takes_any_value(space: Any) -> bool:
    if not isinstance(space, gym.spaces.Box) or space.dtype.kind not in "iu":
        return False
    limits = np.iinfo(space.dtype)
    return bool((space.low == limits.min).all() and (space.high == limits.max).all())


class ObservationSpec:
    """Splits observations of a space into leaves, in a fixed order, and packs them again.

    Args:
        space: A Gymnasium space of numbers, or a (nested) Dict or Tuple of such spaces.
        frame_stack: Int k or None. In a Dict or Tuple, the leaves with a first axis of k and at
            least one more are stacks of frames, except int8: action masks. Defaults to `None`.

    Raises:
        ValueError: If the space holds anything else (Text, Sequence, Graph), or no stack of k
            frames.
    """

    def __init__(self, space: gym.Space, frame_stack: int | None = None) -> None:
        self.space = space
        self.leaves = _leaves(space, "")
        self._single = not _is_nested(space)
        self._keys: dict[str, None] = {}  # of a Dict without Dicts and Tuples in it
        if isinstance(space, gym.spaces.Dict) and len(self.leaves) == len(space.spaces):
            if not any(map(_is_nested, space.values())):
                self._keys = dict.fromkeys(space)
        if frame_stack is not None:
            self._mark_stacks(frame_stack)

    def _mark_stacks(self, frame_stack: int) -> None:
        for leaf in self.leaves:
            leaf.is_stack = leaf.shape[:1] == (frame_stack,) and (
                self._single or (len(leaf.shape) > 1 and leaf.dtype != np.int8)
            )
        if not any(leaf.is_stack for leaf in self.leaves):
            raise ValueError(
                "`frame_stack` must be the size of the first axis of a Box of stacked frames, as "
                f"`FrameStackObservation` makes them. Received: {frame_stack=}, "
                f"observation_space={self.space}"
            )

    def check(self, argument: str, observation: Any, num_envs: int) -> list[NDArray]:
        """Returns one `[E, ...]` array per leaf, or raises a `ValueError` if one does not fit."""
        if self._single:
            return [self.leaves[0].check(argument, observation, num_envs)]
        keys = self._keys
        if keys and type(observation) is dict and observation.keys() == keys.keys():
            values = [observation[key] for key in keys]  # several times as fast
        else:
            values = _flatten(self.space, observation, argument)
        arrays = []
        for leaf, value in zip(self.leaves, values, strict=True):
            arrays.append(leaf.check(argument, value, num_envs))
        return arrays

    def pack(self, arrays: list[NDArray]) -> Any:
        """Packs one array per leaf into the space's form: an array, or a (nested) dict or tuple."""
        return _pack(self.space, iter(arrays))


def _is_nested(space: gym.Space) -> bool:
    return isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple))


def add_axis(observation: Any) -> Any:
    """Returns an observation with a leading axis of one environment."""
    if isinstance(observation, dict):
        return {key: add_axis(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(add_axis(value) for value in observation)
    return np.asarray(observation)[None]


def _leaves(space: gym.Space, name: str) -> list[Leaf]:
    if isinstance(space, gym.spaces.Dict):
        return [leaf for key, sub in space.items() for leaf in _leaves(sub, f"{name}[{key!r}]")]
    if isinstance(space, gym.spaces.Tuple):
        return [leaf for i, sub in enumerate(space) for leaf in _leaves(sub, f"{name}[{i}]")]
    if isinstance(space, (*_TENSOR_SPACES, gym.spaces.Discrete)):
        return [Leaf(name, space)]
    raise ValueError(
        "`observation_space` must be a Box, Discrete, MultiBinary or MultiDiscrete space or a "
        f"Dict or Tuple of them. Received: observation_space{name}={space}"
    )


def _flatten(space: gym.Space, observation: Any, path: str) -> list[Any]:
    if isinstance(space, gym.spaces.Tuple):
        if not isinstance(observation, tuple) or len(observation) != len(space.spaces):
            size = len(observation) if isinstance(observation, tuple) else type(observation)
            raise ValueError(f"`{path}` must be a tuple of {len(space.spaces)}. Received: {size}")
        parts = zip(space.spaces, observation, strict=True)
        return [
            leaf
            for i, (sub, part) in enumerate(parts)
            for leaf in _flatten(sub, part, f"{path}[{i}]")
        ]
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
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_pack(sub, arrays) for sub in space.spaces)
    return next(arrays)
