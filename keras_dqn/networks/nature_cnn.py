"""`nature_cnn`: makes the convolutional network of the DQN paper."""

import gymnasium as gym
import keras

from keras_dqn.networks.inputs_and_outputs import (
    CHANNELS_LAST,
    apply,
    hidden_layers,
    image_input,
    output_layers,
)

_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # filters, pixels of the kernel, stride
_MINIMUM_SIZE = 36  # pixels: 36 -> 8 -> 3 -> 1


def nature_cnn(
    observation_space: gym.Space,
    num_outputs: int | tuple[int, ...] | None,
    *,
    hidden_units: int = 512,
    layer_normalization: bool = False,
) -> keras.Model:
    """Returns the network of the DQN paper for Atari frames.

    Three convolutions with ReLU follow each other, without padding. A Dense layer with ReLU comes
    last:

    | Layer | Filters or units | Kernel | Stride |
    |---|---|---|---|
    | `Conv2D` | 32 | 8 x 8 | 4 |
    | `Conv2D` | 64 | 4 x 4 | 2 |
    | `Conv2D` | 64 | 3 x 3 | 1 |
    | `Dense` | 512 | | |

    All its layers come from Keras, so a saved network can be loaded without keras_dqn. The network
    scales the bounds of the space to [0, 1] if both are finite: it divides uint8 frames by 255.

    Args:
        observation_space: `gymnasium.spaces.Box` of one observation, any dtype. Images are
            channels-last, `(H, W, C)`, or channels-first, `(C, H, W)`. The first axis is the
            channels if it is smaller than both others. Stacked images have a first axis of frames,
            as `gymnasium.wrappers.FrameStackObservation` and `ReplayBuffer(frame_stack=...)` give
            them: `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`. The frames become channels. H and W
            are at least 36 pixels; the paper has 84 and 4 frames.
        num_outputs: Int, actions A, for outputs `[B, A]`. A tuple `(A, N)` for outputs `[B, A, N]`
            with N atoms or quantiles, `(D, A)` or `(D, A, N)` for D branches of actions. `None` for
            no last layer, so the features `[B, hidden_units]` come out: the torso for a head of
            your own.
        hidden_units: Int, units of the Dense layer. Defaults to `512`.
        layer_normalization: Bool, whether a `keras.layers.LayerNormalization` stands between the
            hidden Dense layer and its ReLU. Defaults to `False`.

    Returns:
        `keras.Model` that maps observations `[B, ...]` to `[B, A]`, `[B, A, N]` or
        `[B, hidden_units]`. The last layer has no activation.

    Raises:
        TypeError: If `observation_space` is not a `Box`.
        ValueError: If its images have another rank, or are too small.

    Example:
    >>> frames = gym.spaces.Box(0, 255, (4, 84, 84), "uint8")  # 4 grey frames
    >>> network = nature_cnn(frames, 6)
    >>> network.output_shape, network.count_params()
    ((None, 6), 1687206)

    Reference:
        Mnih et al., 2015, "Human-level control through deep reinforcement learning", Methods,
        "Model architecture".
    """
    inputs, layers = image_input(observation_space, _MINIMUM_SIZE)
    for filters, kernel, strides in _CONVOLUTIONS:
        layers.append(
            keras.layers.Conv2D(filters, kernel, strides, activation="relu", **CHANNELS_LAST)
        )
    layers += [keras.layers.Flatten(), *hidden_layers(hidden_units, layer_normalization)]
    return keras.Model(inputs, apply([*layers, *output_layers(num_outputs)], inputs))
