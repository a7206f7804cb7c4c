"""Clones networks: a clone has its own weights and its own random draws."""

import keras

from keras_dqn.networks.inspection import layers_of


def clone_network(network: keras.layers.Layer) -> keras.layers.Layer:
    """Returns a network of the same architecture, not trainable, with its own random generators.

    Raises:
        TypeError: If `network` is not a Keras layer, or cannot be made again from its config.
    """
    if not isinstance(network, keras.layers.Layer):
        raise TypeError(
            "`network` must be a Keras model or layer that maps observations to action values. "
            f"Received: network={network} of type {type(network)}"
        )
    try:
        clone = _clone(network)
    except (NotImplementedError, TypeError) as error:
        raise TypeError(
            "`network` cannot be cloned into a target network and cannot be saved, because "
            f"{type(network).__name__} has no usable `get_config`. Define `get_config(self)` to "
            "return all arguments of its `__init__`, and let `__init__` take `**kwargs` and pass "
            "them to `super().__init__`. "
            f"Received: network={network}"
        ) from error
    clone.trainable = False
    return clone


def _clone(network: keras.layers.Layer) -> keras.layers.Layer:
    layers = layers_of(network)
    if not isinstance(network, keras.Model):
        # Classes that are not registered, and Lambda layers, may be inside: all are known here.
        classes = {type(layer).__name__: type(layer) for layer in layers}
        config = keras.saving.serialize_keras_object(network)
        return keras.saving.deserialize_keras_object(config, classes, safe_mode=False)
    if any(isinstance(layer, keras.layers.Lambda) for layer in layers):
        return keras.models.clone_model(network, clone_function=_clone_layer, recursive=True)
    return keras.models.clone_model(network)


def _clone_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Clones a layer. `Lambda` is rebuilt by hand because safe mode would refuse it."""
    if not isinstance(layer, keras.layers.Lambda):
        return type(layer).from_config(layer.get_config())
    return keras.layers.Lambda(
        layer.function,
        output_shape=layer.compute_output_shape,
        arguments=layer.arguments,
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def separate_random_draws(network: keras.layers.Layer) -> None:
    """Gives the seed generators of a clone new states, because a clone copies fixed seeds."""
    weights = {id(variable) for variable in network.weights}
    for variable in network.variables:
        if id(variable) not in weights:
            variable.assign(variable.value ^ 0x9E3779B9)
