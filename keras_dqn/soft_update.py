"""Blends the weights of one Keras model or layer into another one of the same architecture."""

import weakref
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import keras

from keras_dqn.arguments import check_number, check_type
from keras_dqn.backend import compiled_for_number, runs_at_once


def soft_update(source: keras.layers.Layer, target: keras.layers.Layer, tau: float) -> None:
    """Moves the weights of `target` towards those of `source`.

    ```
    target <- target + tau * (source - target)
    ```

    Trainable weights of `source` are blended. Its non-trainable weights (such as the statistics of
    BatchNormalization) are copied. The states of seed generators do not change. `tau=1` copies all
    weights. The function works inside a compiled step. It also works as a direct call, which runs
    one program; the first call for two networks compiles it.

    Args:
        source: A built Keras model or layer, the online network.
        target: A built Keras model or layer of the same architecture, which is changed.
        tau: Float in [0, 1], the share of `source` in the blend.

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
    if runs_at_once():
        _program_of(source, target, copies=tau == 1)(tau)
    else:
        check_same_weights(source, target)
        _blend(source, target, tau, copies=tau == 1)


def _blend(source: Any, target: Any, tau: Any, copies: bool) -> None:
    blended = {id(weight) for weight in source.trainable_weights}
    for online, following in zip(source.weights, target.weights, strict=True):
        if copies or id(online) not in blended:
            following.assign(online.value)
        else:
            share = keras.ops.cast(tau, following.dtype)
            following.assign(following.value + share * (online.value - following.value))


# For each target network: the weights that its program was compiled for, and the program. Neither
# keeps a network alive.
_PROGRAMS: WeakKeyDictionary[keras.layers.Layer, tuple[tuple, Callable]] = WeakKeyDictionary()


def _program_of(source: keras.layers.Layer, target: keras.layers.Layer, copies: bool) -> Callable:
    """Returns the compiled program that blends the current weights of the networks."""
    check_networks(source, target)
    online = source.weights
    weights = [copies, *online, *target.weights]
    trainable = [weight.trainable for weight in online]
    (made_for, made_trainable), program = _PROGRAMS.get(target, (([], []), None))
    same = trainable == made_trainable and list(map(id, made_for)) == list(map(id, weights))
    if program is None or not same:
        check_same_weights(source, target)
        networks = weakref.ref(source), weakref.ref(target)

        def blend(tau: Any) -> None:
            online, following = (network() for network in networks)
            _blend(online, following, tau, copies)

        program = compiled_for_number(blend)
        _PROGRAMS[target] = (weights, trainable), program
    return program


def check_tau(tau: float) -> None:
    """Raises a `TypeError` or `ValueError` unless `tau` is a number in [0, 1]."""
    check_number("tau", tau, 0.0, 1.0)


def check_networks(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Raises a `TypeError` unless both are Keras models or layers."""
    for name, network in (("source", source), ("target", target)):
        check_type(name, network, keras.layers.Layer, "a Keras model or layer")


def check_same_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Raises a `ValueError` unless both are built and have weights of the same shapes."""
    check_networks(source, target)
    for name, network in (("source", source), ("target", target)):
        if not network.built:
            raise ValueError(f"`{name}` must be built before its weights can be blended. "
                             f"Received: {name}={network}")  # fmt: skip
    shapes = [[tuple(weight.shape) for weight in network.weights] for network in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`source` and `target` must have weights of the same shapes, in the same order. "
            f"Received: source={shapes[0]}, target={shapes[1]}"
        )
