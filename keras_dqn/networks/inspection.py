"""Finds the input shape and the layers of a Keras network."""

from typing import Any

import keras

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def input_shape_of(network: keras.layers.Layer) -> Any:
    """Returns the input shape `(None, ...)`, or (nested) dict of shapes, of a built network."""
    if isinstance(network, keras.Sequential):
        return network.input_shape
    if hasattr(network, "inputs"):
        return keras.tree.map_structure(lambda tensor: tensor.shape, network.input)
    return network.get_build_config()["input_shape"]


def has_convolutions(network: keras.layers.Layer) -> bool:
    """Returns whether any layer, at any depth, is a convolution."""
    return any(isinstance(layer, _CONVOLUTIONS) for layer in layers_of(network))


def layers_of(network: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and all layers inside it, at any depth."""
    found: dict[int, keras.layers.Layer] = {}
    to_visit: list[Any] = [network]
    while to_visit:
        layer = to_visit.pop()
        if isinstance(layer, keras.layers.Layer) and id(layer) not in found:
            found[id(layer)] = layer
            for value in vars(layer).values():
                to_visit.extend(value if isinstance(value, (list, tuple)) else [value])
    return list(found.values())
