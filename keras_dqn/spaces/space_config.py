"""Converts Gymnasium spaces of numbers to JSON values and back."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

_KINDS = (Dict, Tuple, Box, Discrete, MultiBinary, MultiDiscrete)


def space_to_config(space: Any) -> dict[str, Any]:
    """Returns a dict from which `space_from_config` makes an equal space."""
    kind = next(kind.__name__ for kind in _KINDS if isinstance(space, kind))
    if isinstance(space, Dict):
        return {"kind": kind, "spaces": [[k, space_to_config(s)] for k, s in space.items()]}
    if isinstance(space, Tuple):
        return {"kind": kind, "spaces": [space_to_config(s) for s in space.spaces]}
    if isinstance(space, Box):
        low, high = _shortened(space.low), _shortened(space.high)
        return {
            "kind": kind,
            "low": low,
            "high": high,
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
    if isinstance(space, Discrete):
        return {
            "kind": kind,
            "n": int(space.n),
            "start": int(space.start),
            "dtype": str(space.dtype),
        }
    if isinstance(space, MultiBinary):
        return {"kind": kind, "n": np.array(space.n).tolist()}
    return {
        "kind": kind,
        "nvec": space.nvec.tolist(),
        "start": space.start.tolist(),
        "dtype": str(space.dtype),
    }


def space_from_config(config: dict[str, Any]) -> gym.Space:
    """Returns the space that a dict of `space_to_config` describes.

    Raises:
        ValueError: If the dict describes another kind of space.
    """
    config = dict(config)
    kind = config.pop("kind", None)
    if kind == "Dict":
        # Pairs keep their order; a dict would be sorted, and so would the leaves.
        return Dict([(key, space_from_config(space)) for key, space in config["spaces"]])
    if kind == "Tuple":
        return Tuple([space_from_config(space) for space in config["spaces"]])
    if kind == "Box":
        shape, dtype = tuple(config["shape"]), np.dtype(config["dtype"])
        low, high = (np.full(shape, config[end], dtype) for end in ("low", "high"))
        return Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        dtype = np.dtype(config["dtype"])
        further = {} if dtype == np.int64 else {"dtype": dtype}  # unknown to Gymnasium 1.1
        return Discrete(config["n"], start=config["start"], **further)
    if kind == "MultiBinary":
        return MultiBinary(config["n"])
    if kind == "MultiDiscrete":
        start = np.array(config["start"])
        return MultiDiscrete(np.array(config["nvec"]), np.dtype(config["dtype"]).type, start=start)
    raise ValueError(f"`kind` must name a space that can be restored. Received: {kind=}")


def _shortened(bounds: np.ndarray) -> Any:
    """Returns one number if all bounds are equal, as they are for frames."""
    return (
        bounds.flat[0].item()
        if bounds.size and (bounds == bounds.flat[0]).all()
        else bounds.tolist()
    )
