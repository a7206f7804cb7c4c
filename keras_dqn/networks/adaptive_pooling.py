"""Adaptive max pooling of ordinary Keras layers: the oldest supported Keras has no layer for it."""

import math

import keras

from keras_dqn.networks.inputs_and_outputs import CHANNELS_LAST


def adaptive_max_pooling(height: int, width: int, size: int) -> list[keras.layers.Layer]:
    """Returns layers that pool `[B, height, width, C]` to `[B, size, size, C]`.

    ```
    output[i] = max(inputs[floor(i * height / size) : ceil((i + 1) * height / size)])
    ```

    This is the rule for rows. Columns have the same.
    """
    return [*_pool_axis(height, size, axis=0), *_pool_axis(width, size, axis=1)]


def _pool_axis(length: int, size: int, axis: int) -> list[keras.layers.Layer]:
    windows = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
    pool, strides = max(end - start for start, end in windows), math.ceil(length / size)
    if windows == _windows_of_same_padding(length, pool, strides):
        return [_max_pooling(pool, strides, axis, "same")]
    # Each entry is repeated, so that windows of one length hold the entries of the formula.
    divisor = math.gcd(length, size)
    repeats = size // divisor
    pool = length // divisor
    layers = [keras.layers.UpSampling2D(_along(axis, repeats), **CHANNELS_LAST)]
    return [*(layers if repeats > 1 else []), _max_pooling(pool, pool, axis, "valid")]


def _windows_of_same_padding(length: int, pool: int, strides: int) -> list[tuple[int, int]]:
    starts = range(0, length, strides)
    before = max(starts[-1] + pool - length, 0) // 2
    return [(max(i - before, 0), min(i - before + pool, length)) for i in starts]


def _max_pooling(pool: int, strides: int, axis: int, padding: str) -> keras.layers.Layer:
    return keras.layers.MaxPooling2D(
        _along(axis, pool), _along(axis, strides), padding, **CHANNELS_LAST
    )


def _along(axis: int, value: int) -> tuple[int, int]:
    return (value, 1) if axis == 0 else (1, value)
