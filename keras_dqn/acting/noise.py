"""Finds the `NoisyDense` layers of a network, whose noise is an input of a policy's program."""

from typing import Any

import keras

from keras_dqn.acting.agent import Agent
from keras_dqn.acting.exploration import Exploration
from keras_dqn.layers.noisy_dense import NoisyDense
from keras_dqn.networks.inspection import layers_of


def noisy_layers(network: keras.layers.Layer) -> list[NoisyDense]:
    """Returns the `NoisyDense` layers of a network, at any depth."""
    return [layer for layer in layers_of(network) if isinstance(layer, NoisyDense)]


def noise_size_of(network: keras.layers.Layer) -> int:
    """Returns how many numbers one draw of all noisy layers has.

    Raises:
        ValueError: If the network has no noisy layer.
    """
    check_noisy(network)
    return sum(layer.noise_size for layer in noisy_layers(network))


def check_noisy(network: keras.layers.Layer) -> None:
    """Raises a `ValueError` unless a network has a noisy layer."""
    if not noisy_layers(network):
        raise ValueError(
            "`exploration` NoisyGreedy needs a network with `keras_dqn.layers.NoisyDense` layers. "
            f"Received: network={network} without one"
        )


def check_explores(exploration: Exploration, model: Any) -> None:
    """Raises a `ValueError` if an exploration rule needs noise that a model does not have."""
    if exploration.noisy:
        check_noisy(model.network if isinstance(model, Agent) else model)
