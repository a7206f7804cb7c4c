"""Turns the greedy policy of an agent into a separate Keras model, and exports it."""

import re
from typing import Any

import keras
import tensorflow as tf

from keras_dqn.acting.agent import Agent
from keras_dqn.acting.native_log import native_log_silenced
from keras_dqn.networks.inspection import input_shape_of
from keras_dqn.spaces.action_mask import existing_actions, mask_of, without_mask


class ExportedPolicy(keras.Model):
    """Maps observations `[B, ...]` (or dicts of arrays) to greedy actions `[B]` int64 of the space.

    Args:
        agent: A built `DQN`. The preprocessing layers of its network become part of the policy.
    """

    def __init__(self, agent: Agent) -> None:
        super().__init__(name="policy", dtype="float32")
        self.network = agent.network
        self._outputs_of = agent.outputs_of
        self._q_values = agent.q_values
        self._action_start = agent.action_start
        self._branch_sizes = agent.branch_sizes
        self._action_mask = agent.action_mask

    def call(self, observation: Any) -> tf.Tensor:
        """Returns the greedy actions."""
        inputs = without_mask(observation, self._action_mask)
        q_values = self._q_values(self._outputs_of(self.network, inputs))
        if self._branch_sizes is not None:
            exist = existing_actions(self._branch_sizes)[None]
            q_values = tf.where(exist, q_values, tf.float32.min)
        if self._action_mask is not None:  # LiteRT compares no int8
            allowed = tf.cast(mask_of(observation, self._action_mask), tf.float32) != 0.0
            q_values = tf.where(allowed, q_values, tf.float32.min)
        # LiteRT lacks an operation that Keras' argmax needs.
        return tf.argmax(q_values, axis=-1) + tf.constant(self._action_start, tf.int64)


def write_policy(agent: Agent, filepath: Any, format: str, **kwargs: Any) -> None:
    """Exports the greedy policy of an agent, as `DQN.export_policy` says."""
    network = agent.network
    if not network.built:
        raise ValueError(
            "The agent must be built before it is exported: give the network a `keras.Input`, or "
            f"call `agent.act(observation)` once. Received: network={network}"
        )
    spec = _observation_spec(network)
    if agent.action_mask is not None:
        spec = _with_mask(agent, spec)
    policy = ExportedPolicy(agent)
    policy(keras.tree.map_structure(_zeros, spec))  # Keras exports only a model that was called
    kwargs.setdefault("input_signature", [spec])
    with native_log_silenced():
        policy.export(filepath, format=format, **kwargs)


def _observation_spec(network: keras.layers.Layer) -> Any:
    """Returns the shapes and dtypes of a network's inputs; float32 if it does not define them."""
    if isinstance(network, keras.Sequential):
        inputs: Any = network.inputs
    elif hasattr(network, "inputs"):
        inputs = network.input
    else:
        inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape_of(network))
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        (inputs,) = inputs
    return _named_spec(inputs, "")


def _with_mask(agent: Agent, spec: Any) -> dict:
    """Returns the spec of the observations from which the agent takes the mask."""
    outputs = agent.outputs_of(agent.network, keras.tree.map_structure(_zeros, spec))
    shape = (None, *agent.q_values(outputs).shape[1:])
    mask = tf.TensorSpec(shape, tf.int8, agent.action_mask)
    rest = spec if isinstance(spec, dict) else {"observation": spec}
    return {**rest, agent.action_mask: mask}


def _named_spec(inputs: Any, name: str) -> Any:
    if isinstance(inputs, dict):
        return {key: _named_spec(value, f"{name}_{key}") for key, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return [_named_spec(value, f"{name}_observation{i}") for i, value in enumerate(inputs)]
    name = re.sub(r"\W", "_", name[1:]) or "observation"
    return tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype, name)


def _zeros(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([size or 1 for size in spec.shape], spec.dtype)
