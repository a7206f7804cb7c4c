"""What a Keras network is made of: its input shape and its layers."""

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
    """Returns the shape `(None, ...)`, or (nested) dict of shapes, that a built network takes."""
    if isinstance(network, keras.Sequential):
        return network.input_shape
    if hasattr(network, "inputs"):
        return keras.tree.map_structure(lambda tensor: tensor.shape, network.input)
    return network.get_build_config()["input_shape"]


def has_convolutions(network: keras.layers.Layer) -> bool:
    """Returns whether any layer, however deep, is a convolution."""
    return any(isinstance(layer, _CONVOLUTIONS) for layer in layers_of(network))


def layers_of(network: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and all layers inside it, however deep."""
    found: dict[int, keras.layers.Layer] = {}
    to_visit: list[Any] = [network]
    while to_visit:
        layer = to_visit.pop()
        if isinstance(layer, keras.layers.Layer) and id(layer) not in found:
            found[id(layer)] = layer
            for value in vars(layer).values():
                to_visit.extend(value if isinstance(value, (list, tuple)) else [value])
    return list(found.values())
