"""`minatar_cnn`: makes the small convolutional network of the MinAtar paper."""

import gymnasium as gym
import keras

from keras_dqn.networks.inputs_and_outputs import (
    CHANNELS_LAST,
    apply,
    hidden_layers,
    image_input,
    output_layers,
)


def minatar_cnn(
    observation_space: gym.Space,
    num_outputs: int | tuple[int, ...] | None,
    *,
    hidden_units: int = 128,
    layer_normalization: bool = False,
) -> keras.Model:
    """Returns the small network of the MinAtar paper, for images of about 10 x 10 cells.

    One `Conv2D` has 16 filters, 3 x 3 kernels, stride 1 and no padding. One `Dense` layer has 128
    units. ReLU follows each of them.

    All its layers come from Keras, so a saved network can be loaded without keras_dqn. The network
    casts bools to floats. It scales the bounds of other spaces to [0, 1] if both are finite.

    Args:
        observation_space: `gymnasium.spaces.Box` of one observation, any dtype. MinAtar's are bool,
            `(10, 10, C)`. Channels-first images `(C, H, W)` work as well. The first axis is the
            channels if it is smaller than both others. Stacked images have a first axis of frames,
            as `gymnasium.wrappers.FrameStackObservation` and `ReplayBuffer(frame_stack=...)` give
            them: `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`. The frames become channels. H and W
            are at least 3 cells.
        num_outputs: Int, actions A, for outputs `[B, A]`. A tuple `(A, N)` for outputs `[B, A, N]`
            with N atoms or quantiles, `(D, A)` or `(D, A, N)` for D branches of actions. `None` for
            no last layer, so the features `[B, hidden_units]` come out: the torso for a head of
            your own.
        hidden_units: Int, units of the Dense layer. Defaults to `128`.
        layer_normalization: Bool, whether a `keras.layers.LayerNormalization` stands between the
            hidden Dense layer and its ReLU. Defaults to `False`.

    Returns:
        `keras.Model` that maps observations `[B, ...]` to `[B, A]`, `[B, A, N]` or
        `[B, hidden_units]`. The last layer has no activation.

    Raises:
        TypeError: If `observation_space` is not a `Box`.
        ValueError: If its images have another rank, or are too small.

    Example:
    >>> breakout = gym.spaces.Box(0, 1, (10, 10, 4), bool)
    >>> network = minatar_cnn(breakout, 6)
    >>> network.output_shape, network.count_params()
    ((None, 6), 132566)

    Reference:
        Young and Tian, 2019, "MinAtar: An Atari-inspired testbed for thorough and reproducible
        reinforcement learning experiments", and the authors' `examples/dqn.py`.
    """
    inputs, layers = image_input(observation_space, minimum_size=3)
    layers += [
        keras.layers.Conv2D(16, 3, activation="relu", **CHANNELS_LAST),
        keras.layers.Flatten(),
        *hidden_layers(hidden_units, layer_normalization),
    ]
    return keras.Model(inputs, apply([*layers, *output_layers(num_outputs)], inputs))
