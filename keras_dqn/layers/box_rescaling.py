"""`box_rescaling`: makes a layer that scales observations to [-1, 1] by the bounds of a space."""

from typing import Any

import gymnasium as gym
import keras
import numpy as np

from keras_dqn.arguments import check_type


def box_rescaling(space: gym.spaces.Box, **kwargs: Any) -> keras.layers.Rescaling:
    """Returns a `keras.layers.Rescaling` that scales a `Box` to [-1, 1] by its bounds.

    ```
    output = (2 * observation - low - high) / (high - low)
    ```

    Entries without two finite bounds do not change. The layer comes from Keras, so a saved network
    can be loaded without keras_dqn. Use it when inputs have very different scales, because they
    slow learning down. In MountainCar, for example, the velocity is at most 0.07.

    Args:
        space: `gym.spaces.Box` of one observation: `env.observation_space`, or for a vector
            environment `env.single_observation_space`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Rescaling`.

    Returns:
        Layer that maps `[B, ...]` of any dtype to floats `[B, ...]`.

    Raises:
        TypeError: If `space` is not a `Box`.

    Example:
    >>> space = gym.make("MountainCar-v0").observation_space
    >>> network = keras.Sequential([keras.Input(space.shape), box_rescaling(space)])
    >>> bool(np.allclose(network(np.array([[-0.3, 0.07]])), [[0.0, 1.0]], atol=1e-6))
    True
    """
    check_type("space", space, gym.spaces.Box, "a gymnasium.spaces.Box")
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    # Some environments use the largest float instead of infinity.
    largest = np.finfo(np.float32).max
    bounded = (low > -largest) & (high < largest) & (low < high)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    scale, offset = 2.0 / (high - low), -(low + high) / (high - low)
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), **kwargs)
