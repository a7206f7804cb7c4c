"""The two ends of a network, as lists of Keras layers.

The first layers turn observations `[B, ...]` of a space into floats. The last layers turn features
`[B, F]` into outputs.
"""

import math
from typing import Any

import gymnasium as gym
import keras
import numpy as np

from keras_dqn.arguments import check_bool, check_integer, check_type

# Convolutions run on a CPU in this layout alone, so `keras.config` does not choose it.
CHANNELS_LAST = {"data_format": "channels_last"}


def image_input(space: Any, minimum_size: int) -> tuple[keras.KerasTensor, list]:
    """Returns the input of an image space, and layers that make `[B, H, W, C]` floats of it.

    Args:
        space: Box of images, `(H, W, C)` or `(C, H, W)`, with or without a first axis of frames.
        minimum_size: Int, the smallest allowed height and width, pixels.
    """
    check_type("observation_space", space, gym.spaces.Box, "a gymnasium.spaces.Box of images")
    rank = len(space.shape)
    if rank not in (3, 4):
        raise ValueError(
            "`observation_space` must have the shape (H, W, C) or (C, H, W), or with a first axis "
            f"of frames (N, H, W, C) or (N, C, H, W). Received: shape={space.shape}"
        )
    # The axes of the input, counted as `Permute` counts them: the batch axis is 0.
    height, width, channels = rank - 2, rank - 1, rank
    if space.shape[-3] < min(space.shape[-2:]):  # channels first
        height, width, channels = rank - 1, rank, rank - 2
    order = (height, width, *range(1, rank - 2), channels)
    sizes = [space.shape[axis - 1] for axis in order]
    if min(sizes[:2]) < minimum_size:
        raise ValueError(
            f"`observation_space` must have images of at least {minimum_size} x {minimum_size} "
            f"pixels. Received: {sizes[0]} x {sizes[1]}, shape={space.shape}"
        )
    layers: list[keras.layers.Layer] = []
    if list(order) != sorted(order):
        layers.append(keras.layers.Permute(order))
    if rank == 4:
        layers.append(keras.layers.Reshape((*sizes[:2], sizes[2] * sizes[3])))
    return _input(space), [*layers, _scaling(space)]


def vector_input(space: Any) -> tuple[keras.KerasTensor, list]:
    """Returns the input of a space, and layers that make `[B, F]` floats of it."""
    if isinstance(space, gym.spaces.Discrete):
        return _input(space, "int32"), [
            _shift(-int(space.start)),
            keras.layers.CategoryEncoding(int(space.n), output_mode="one_hot"),
        ]
    check_type(
        "observation_space",
        space,
        (gym.spaces.Box, gym.spaces.MultiBinary, gym.spaces.MultiDiscrete),
        "a Box, Discrete, MultiBinary or MultiDiscrete space of gymnasium",
    )
    if isinstance(space, gym.spaces.MultiDiscrete):
        return _input(space), _one_hot_parts(space)
    layers = [] if space.dtype.kind == "f" else [_scaling(space)]
    if len(space.shape) != 1:
        layers.append(keras.layers.Flatten())
    return _input(space), layers


def output_layers(num_outputs: int | tuple[int, ...] | None) -> list[keras.layers.Layer]:
    """Returns the layers from features `[B, F]` to outputs; none for features alone."""
    if num_outputs is None:
        return []
    if not isinstance(num_outputs, (tuple, list)):
        return [keras.layers.Dense(check_integer("num_outputs", num_outputs))]
    if len(num_outputs) not in (2, 3):
        raise ValueError(
            "`num_outputs` must be an integer, a tuple (actions, atoms or quantiles), (branches, "
            "actions) or (branches, actions, atoms or quantiles), or None. Received: "
            f"num_outputs={num_outputs}"
        )
    shape = tuple(check_integer("num_outputs", size) for size in num_outputs)
    return [keras.layers.Dense(math.prod(shape)), keras.layers.Reshape(shape)]


def hidden_layers(units: Any, layer_normalization: Any = False) -> list[keras.layers.Layer]:
    """Returns the Dense layer with ReLU that follows the convolutions.

    With `layer_normalization` a `keras.layers.LayerNormalization` stands in between.
    """
    units = check_integer("hidden_units", units)
    if not check_bool("layer_normalization", layer_normalization):
        return [keras.layers.Dense(units, activation="relu")]
    return [keras.layers.Dense(units), keras.layers.LayerNormalization(), keras.layers.ReLU()]


def apply(layers: list[keras.layers.Layer], x: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the output of the last layer, each applied to the output of the one before it."""
    for layer in layers:
        x = layer(x)
    return x


def _input(space: Any, dtype: str | None = None) -> keras.KerasTensor:
    """Integers and bools enter as they are stored; floats in the dtype that Keras computes in."""
    if dtype is None and space.dtype.kind != "f":
        dtype = space.dtype.name
    return keras.Input(space.shape, dtype=dtype)


def _one_hot_parts(space: gym.spaces.MultiDiscrete) -> list[keras.layers.Layer]:
    """Each part of an observation has its own range of the encoding: `[B, sum(nvec)]`."""
    sizes = space.nvec.flatten()
    offsets = np.cumsum(sizes) - sizes - space.start.flatten()
    return [
        _shift(offsets.reshape(space.shape).tolist()),
        keras.layers.Reshape((sizes.size, 1)),
        keras.layers.CategoryEncoding(int(sizes.sum()), output_mode="one_hot"),
        keras.layers.GlobalMaxPooling1D(data_format="channels_last"),  # XLA has no "multi_hot"
    ]


def _shift(offset: Any) -> keras.layers.Layer:
    return keras.layers.Rescaling(1.0, offset, dtype="float32")  # float16 ends counting at 2,048


def _scaling(space: Any) -> keras.layers.Layer:
    """Returns a layer that scales the smallest and largest bound to 0 and 1, if both are finite."""
    low, high = 0.0, 1.0
    if isinstance(space, gym.spaces.Box) and space.is_bounded():
        bounds = float(space.low.min()), float(space.high.max())
        # Some environments use the largest float instead of infinity.
        if bounds[0] < bounds[1] and np.abs(bounds).max() < np.finfo(np.float32).max:
            low, high = bounds
    return keras.layers.Rescaling(1.0 / (high - low), -low / (high - low))
