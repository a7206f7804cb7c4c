"""Networks as ordinary Keras models, for observations as environments and buffers give them."""

from keras_dqn.networks.mlp import mlp

__all__ = ["mlp"]
