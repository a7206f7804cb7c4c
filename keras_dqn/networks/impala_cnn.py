"""`impala_cnn`: makes the residual convolutional network of the IMPALA paper."""

import gymnasium as gym
import keras

from keras_dqn.arguments import check_bool, check_integer
from keras_dqn.networks.adaptive_pooling import adaptive_max_pooling
from keras_dqn.networks.inputs_and_outputs import (
    CHANNELS_LAST,
    apply,
    hidden_layers,
    image_input,
    output_layers,
)

_CHANNELS = (16, 32, 32)  # of the three sections


def impala_cnn(
    observation_space: gym.Space,
    num_outputs: int | tuple[int, ...] | None,
    *,
    width: int = 1,
    hidden_units: int | None = 256,
    spectral_normalization: bool = False,
    max_pooling: int | None = None,
) -> keras.Model:
    """Returns the large residual network of the IMPALA paper, without its LSTM.

    Three sections with 16, 32 and 32 channels follow each other. All convolutions have 3 x 3
    kernels and padding `"same"`:

    ```
    section(x)  = residual(residual(max_pool(conv(x))))     max_pool: 3 x 3, stride 2
    residual(x) = x + conv(relu(conv(relu(x))))
    network(x)  = dense(relu(dense(flatten(relu(section(section(section(x))))))))
    ```

    All its layers come from Keras, so a saved network can be loaded without keras_dqn. The network
    scales the bounds of the space to [0, 1] if both are finite: it divides uint8 frames by 255.

    Args:
        observation_space: `gymnasium.spaces.Box` of one observation, any dtype. Images are
            channels-last, `(H, W, C)`, or channels-first, `(C, H, W)`. The first axis is the
            channels if it is smaller than both others. Stacked images have a first axis of frames,
            as `gymnasium.wrappers.FrameStackObservation` and `ReplayBuffer(frame_stack=...)` give
            them: `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`. The frames become channels.
        num_outputs: Int, actions A, for outputs `[B, A]`. A tuple `(A, N)` for outputs `[B, A, N]`
            with N atoms or quantiles, `(D, A)` or `(D, A, N)` for D branches of actions. `None` for
            no last layer, so the features `[B, F]` come out: the torso for a head of your own.
        width: Int, factor of the numbers of channels; Beyond the Rainbow has 2. Defaults to `1`.
        hidden_units: Int, units of the Dense layer. `None` for no such layer, so the flattened
            features come out, or go into the last layer. Defaults to `256`.
        spectral_normalization: Bool, whether a `keras.layers.SpectralNormalization` wraps each
            convolution of the residual blocks, as in Beyond the Rainbow. At each update Keras
            divides the kernel itself by its norm; PyTorch also keeps the kernel before the
            division, and trains that one. Defaults to `False`.
        max_pooling: Int or None, height and width to which adaptive max pooling brings the last
            section's output, pixels. The Dense layer then has the same size for all images. Beyond
            the Rainbow has 6. Defaults to `None`, no such pooling.

    Returns:
        `keras.Model` that maps observations `[B, ...]` to `[B, A]`, `[B, A, N]` or `[B, F]`. The
        last layer has no activation.

    Raises:
        TypeError: If `observation_space` is not a `Box`.
        ValueError: If its images have another rank.

    Example:
    >>> frames = gym.spaces.Box(0, 255, (4, 84, 84), "uint8")  # 4 grey frames
    >>> impala_cnn(frames, 6).count_params()
    1090774
    >>> torso = impala_cnn(
    ...     frames, None, width=2, hidden_units=None, spectral_normalization=True, max_pooling=6
    ... )
    >>> torso.output_shape
    (None, 2304)

    Reference:
        Espeholt et al., 2018, "IMPALA: Scalable distributed deep-RL with importance weighted
        actor-learner architectures", Figure 3, right. Clark et al., 2025, "Beyond the Rainbow: High
        performance deep reinforcement learning on a desktop PC".
    """
    check_integer("width", width)
    normalized = check_bool("spectral_normalization", spectral_normalization)
    inputs, layers = image_input(observation_space, minimum_size=1)
    x = apply(layers, inputs)
    for channels in _CHANNELS:
        x = _convolution(width * channels)(x)
        x = keras.layers.MaxPooling2D(3, 2, "same", **CHANNELS_LAST)(x)
        for _ in range(2):
            x = _residual_block(x, width * channels, normalized)
    x = keras.layers.ReLU()(x)
    if max_pooling is not None:
        size = check_integer("max_pooling", max_pooling)
        x = apply(adaptive_max_pooling(x.shape[1], x.shape[2], size), x)
    x = keras.layers.Flatten()(x)
    if hidden_units is not None:
        x = apply(hidden_layers(hidden_units), x)
    return keras.Model(inputs, apply(output_layers(num_outputs), x))


def _residual_block(
    x: keras.KerasTensor, channels: int, spectral_normalization: bool
) -> keras.KerasTensor:
    y = x
    for _ in range(2):
        convolution = _convolution(channels)
        if spectral_normalization:  # in the dtype of the kernel: the norm overflows in float16
            dtype = convolution.variable_dtype
            convolution = keras.layers.SpectralNormalization(convolution, dtype=dtype)
        y = convolution(keras.layers.ReLU()(y))
    return keras.layers.Add()([x, y])


def _convolution(channels: int) -> keras.layers.Layer:
    return keras.layers.Conv2D(channels, 3, padding="same", **CHANNELS_LAST)
