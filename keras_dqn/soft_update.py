"""The blend of one network's weights into another's, on Keras models and layers of any kind."""

import keras

from keras_dqn.arguments import check_number, check_type


def soft_update(source: keras.layers.Layer, target: keras.layers.Layer, tau: float) -> None:
    """Moves the weights of `target` a step towards those of `source`.

    ```
    target <- target + tau * (source - target)
    ```

    Trainable weights of `source` are blended; its non-trainable weights (the statistics of
    BatchNormalization, say) are copied. The states of seed generators stay as they are. Works
    eagerly and inside a compiled step. `tau=1` copies.

    Args:
        source: A built Keras model or layer, the online network.
        target: One of the same architecture, the network that follows.
        tau: Float in [0, 1].

    Raises:
        ValueError: If `tau` is outside [0, 1], a network is not built, or their weights differ in
            number or shape.

    Example:
    >>> online, target = keras.layers.Dense(1), keras.layers.Dense(1)
    >>> for layer in (online, target): layer.build((None, 1))
    >>> soft_update(online, target, tau=1.0)
    >>> bool(online.kernel[0, 0] == target.kernel[0, 0])
    True

    Reference:
        Lillicrap et al., 2016, "Continuous control with deep reinforcement learning", Algorithm 1.
    """
    check_tau(tau)
    check_same_weights(source, target)
    blended = {id(weight) for weight in source.trainable_weights}
    for online, following in zip(source.weights, target.weights, strict=True):
        if tau == 1 or id(online) not in blended:
            following.assign(online.value)
        else:
            following.assign(following.value + tau * (online.value - following.value))


def check_tau(tau: float) -> None:
    """Raises a `TypeError` or `ValueError` unless `tau` is a number in [0, 1]."""
    check_number("tau", tau, 0.0, 1.0)


def check_same_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Raises a `ValueError` unless both are built and have weights of the same shapes."""
    for name, network in (("source", source), ("target", target)):
        check_type(name, network, keras.layers.Layer, "a Keras model or layer")
        if not network.built:
            raise ValueError(f"`{name}` must be built before its weights can be blended. "
                             f"Received: {name}={network}")  # fmt: skip
    shapes = [[tuple(weight.shape) for weight in network.weights] for network in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`source` and `target` must have weights of the same shapes, in the same order. "
            f"Received: source={shapes[0]}, target={shapes[1]}"
        )
