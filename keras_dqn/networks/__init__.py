"""Networks as ordinary Keras models, for observations as environments and buffers give them."""

from keras_dqn.networks.impala_cnn import impala_cnn
from keras_dqn.networks.minatar_cnn import minatar_cnn
from keras_dqn.networks.mlp import mlp
from keras_dqn.networks.nature_cnn import nature_cnn

__all__ = ["impala_cnn", "minatar_cnn", "mlp", "nature_cnn"]
