"""Keras layers for Q-networks."""

from keras_dqn.layers.box_rescaling import box_rescaling
from keras_dqn.layers.cosine_embedding import CosineEmbedding
from keras_dqn.layers.dueling_head import DuelingHead
from keras_dqn.layers.noisy_dense import NoisyDense

__all__ = ["CosineEmbedding", "DuelingHead", "NoisyDense", "box_rescaling"]
