"""Whether XLA makes a model's training faster."""

import keras
import tensorflow as tf

from keras_dqn.networks.inspection import has_convolutions, layers_of


def xla_pays(model: keras.Model) -> bool:
    """Returns whether `jit_compile="auto"` uses XLA, which depends on the layers and the machine.

    Args:
        model: A `ReplayTrainer`.
    """
    if model.num_replicas > 1 or not all(layer.supports_jit for layer in layers_of(model)):
        return False
    has_accelerator = any(d.device_type != "CPU" for d in tf.config.list_physical_devices())
    return has_accelerator or not has_convolutions(model)
