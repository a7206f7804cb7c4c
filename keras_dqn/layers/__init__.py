"""Keras layers for Q-networks."""

from keras_dqn.layers.box_rescaling import box_rescaling

__all__ = ["box_rescaling"]
