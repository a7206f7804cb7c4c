"""A model that owns a network and its target network."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_dqn.backend import outside_graph
from keras_dqn.files import is_local, is_new, replaced
from keras_dqn.networks.cloning import clone_network, separate_random_draws
from keras_dqn.networks.inspection import input_shape_of, layers_of
from keras_dqn.soft_update import soft_update
from keras_dqn.trainers.replay_trainer import ReplayTrainer


class TargetNetworkModel(ReplayTrainer):
    """Maps inputs through `network` and keeps a clone of it as `target_network`.

    Both are equal after building. Only `update_target` changes the target network, and
    `SoftTargetUpdate` calls it inside the compiled step. The target network never gets a gradient,
    whatever its `trainable` is. All computation goes through `outputs_of`, also a call of the
    model. A subclass that treats observations differently overrides `outputs_of`, not `call`.

    Args:
        network: Keras model or layer. It is used itself, not copied: `model.network is network`.
        name: String or None.
        **kwargs: Arguments of `keras.Model`, such as `dtype`.

    Raises:
        TypeError: If `network` is not a Keras layer, if it cannot be cloned because it has no
            `get_config`, or if a subclass overrides `call`.
    """

    def __init__(
        self, network: keras.layers.Layer, *, name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        if type(self).call is not TargetNetworkModel.call:
            raise TypeError(
                "Override `outputs_of(network, observation, training)` instead of `call`: the "
                "target network and the policy would not use `call`. Received: a `call` in "
                f"{type(self).__name__}"
            )
        self.network = network
        with keras.name_scope("target_network"):  # weights of both networks get different paths
            self.target_network = clone_network(network)
        self.target_follows = False  # whether something updates the target network
        self.action_start = 0  # the environment's number of the first action, of each branch
        self.branch_sizes = None  # if branches have different sizes
        self._observation_rank: int | None = None
        if network.built:
            # The model itself is built later, because a subclass may still add layers and metrics.
            self._build_equal(input_shape_of(network), lambda net, inputs: net(inputs))

    def build(self, input_shape: Any) -> None:
        """Builds both networks and makes them equal, unless they are already built."""
        self._observation_rank = len(_first_shape(input_shape)) - 1
        if not self.target_network.built:
            self._build_equal(input_shape, self.outputs_of)

    def build_for(self, observation: Any) -> None:
        """Builds the model, if needed, for observations `[B, ...]` (or a dict of arrays)."""
        if not self.built:
            shape = keras.tree.map_structure(lambda a: (None, *a.shape[1:]), observation)
            self.build(input_shape_of(self.network) if self.network.built else shape)

    def _build_equal(self, input_shape: Any, call: Callable[[Any, Any], Any]) -> None:
        inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
        if not self.network.built:
            call(self.network, inputs)
        if not self.target_network.built:
            with keras.name_scope("target_network"):
                call(self.target_network, inputs)
        with outside_graph():
            separate_random_draws(self.target_network)
            soft_update(self.network, self.target_network, tau=1.0)
            _finalize(self.target_network)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the outputs of `network` for observations `[B, ...]`."""
        return self.outputs_of(self.network, self.inputs_of(inputs), training)

    def inputs_of(self, observation: Any) -> Any:
        """Returns the part of an observation that goes to `outputs_of`; here the whole."""
        return observation

    def outputs_of(
        self, network: keras.layers.Layer, observation: Any, training: bool | None = False
    ) -> Any:
        """Returns the outputs of a network for observations; all computation uses this method.

        Args:
            network: `network`, `target_network` or another network of the same architecture.
            observation: `[B, ...]` (or a dict of arrays).
            training: Bool or None, as in the call of a Keras layer. Defaults to `False`.
        """
        return network(observation, training=training)

    def update_target(self, tau: float = 1.0) -> None:
        """Moves the target network towards the online network: one `soft_update` with this `tau`.

        Args:
            tau: Float in [0, 1]; 1 copies. Defaults to `1.0`.

        Raises:
            ValueError: If `tau` is outside [0, 1] or the agent is not built.
        """
        soft_update(self.network, self.target_network, tau)
        self.target_follows = True

    def known_input_shape(self) -> Any:
        """Returns the input shape of the network if it is built, otherwise None."""
        return input_shape_of(self.network) if self.network.built else None

    def after_epoch(self) -> None:
        """Warns once if nothing has updated the target network."""
        if not self.target_follows:
            self.target_follows = True
            warnings.warn(
                "The target network has not been updated: it still has its first weights. Add "
                "`keras_dqn.SoftTargetUpdate(tau=0.005)` to the callbacks of `fit`, or call "
                "`agent.update_target(tau)`.",
                stacklevel=2,
            )

    @property
    def trainable_variables(self) -> list:
        """The variables that get a gradient, without those of the target network."""
        target = {id(variable) for variable in self.target_network.variables}
        return [v for v in super().trainable_variables if id(v) not in target]

    @property
    def trainable_weights(self) -> list:
        """The same as `trainable_variables`."""
        return self.trainable_variables

    @property
    def non_trainable_variables(self) -> list:
        """All other variables, including those of the target network."""
        return _without(self.variables, self.trainable_variables)

    @property
    def non_trainable_weights(self) -> list:
        """All other weights, including those of the target network."""
        return _without(self.weights, self.trainable_variables)

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`, including the serialized network."""
        names = ("action_start", "branch_sizes")
        actions = {name: getattr(self, name) for name in names if getattr(self, name)}
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            **actions,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "TargetNetworkModel":
        """Creates a model from a config that `get_config` returned."""
        config = {
            name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
            if isinstance(value, dict) and "class_name" in value
            else value
            for name, value in config.items()
        }
        action_start, sizes = config.pop("action_start", 0), config.pop("branch_sizes", None)
        model = cls(**config)
        model.action_start, model.branch_sizes = action_start, sizes
        return model

    @property
    def action_start(self) -> Any:
        """The environment's action that has the number 0: an int, or D ints if one is not 0."""
        return self._action_start

    @action_start.setter
    def action_start(self, value: Any) -> None:
        starts = tuple(np.ravel(value).tolist())
        self._action_start = (starts if np.ndim(value) else starts[0]) if any(starts) else 0

    @property
    def branch_sizes(self) -> tuple[int, ...] | None:
        """The choices of each branch if they differ, D ints, else None."""
        return self._branch_sizes

    @branch_sizes.setter
    def branch_sizes(self, value: Any) -> None:
        sizes = None if value is None else tuple(np.ravel(value).tolist())
        self._branch_sizes = sizes if sizes and len(set(sizes)) > 1 else None

    # Files

    def save(
        self, filepath: Any, overwrite: bool = True, zipped: Any = None, **kwargs: Any
    ) -> None:
        """Saves the agent, as `keras.Model.save` does; a crash leaves the old or the new file.

        Args:
            filepath: As in Keras. Only a local `.keras` file is safe in a crash.
            overwrite: As in Keras.
            zipped: As in Keras.
            **kwargs: As in Keras.
        """
        self._build_if_known()
        whole = zipped is not False and is_local(filepath, ".keras")
        if not whole or not (overwrite or is_new(filepath)):
            super().save(filepath, overwrite, zipped, **kwargs)
            return
        with replaced(filepath) as unfinished:
            super().save(unfinished, True, zipped, **kwargs)

    def save_weights(
        self, filepath: Any, overwrite: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Saves the weights, as `keras.Model.save_weights` does; a crash leaves a complete file.

        Args:
            filepath: As in Keras. Only a local `.weights.h5` file is safe in a crash.
            overwrite: As in Keras.
            *args: As in Keras.
            **kwargs: As in Keras.
        """
        self._build_if_known()
        sharded = args or kwargs.get("max_shard_size") is not None
        if sharded or not is_local(filepath, ".weights.h5") or not (overwrite or is_new(filepath)):
            super().save_weights(filepath, overwrite, *args, **kwargs)
            return
        with replaced(filepath, ".weights.h5") as unfinished:
            super().save_weights(unfinished, True, **kwargs)

    def load_weights(self, filepath: Any, **kwargs: Any) -> None:
        """Loads weights, as `keras.Model.load_weights` does; the network must be built."""
        self._build_if_known()
        super().load_weights(filepath, **kwargs)

    def _build_if_known(self) -> None:
        shape = self.known_input_shape()
        if shape is not None and not self.built:
            self.build(shape)

    # State

    def get_state(self) -> dict[str, Any]:
        """Returns all variables of the model, with the layers' seeds, and those of the optimizer.

        Metrics are not included, because each epoch resets them.
        """
        return {
            "variables": [variable.numpy() for variable in self.variables],
            "optimizer_variables": [variable.numpy() for variable in self._optimizer_variables()],
            "target_follows": self.target_follows,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state of a model that was made, built and compiled with the same arguments.

        Raises:
            ValueError: If the state has variables of other shapes. The model then stays unchanged.
        """
        pairs: list[tuple] = []
        for name in ("variables", "optimizer_variables"):
            own = self.variables if name == "variables" else self._optimizer_variables()
            shapes = [tuple(variable.shape) for variable in own]
            received = [np.shape(value) for value in state[name]]
            if shapes != received:
                raise ValueError(
                    f"`state` must hold {name} with the shapes {shapes}. Received: {received}"
                )
            pairs += zip(own, state[name], strict=True)
        for variable, value in pairs:
            variable.assign(value)
        _finalize(self.network)
        _finalize(self.target_network)
        self.target_follows = state["target_follows"]

    def _optimizer_variables(self) -> list:
        return self.optimizer.variables if self.compiled and self.optimizer is not None else []


def _finalize(network: Any) -> None:
    """Lets Normalization layers compute the values that they derive from their weights."""
    for layer in layers_of(network):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _without(variables: list, excluded: list) -> list:
    ids = {id(variable) for variable in excluded}
    return [variable for variable in variables if id(variable) not in ids]


def _first_shape(shape: Any) -> tuple:
    """Returns a shape itself, or the first shape of a (nested) dict or list of shapes."""
    while not all(size is None or isinstance(size, int) for size in shape):
        shape = next(iter(shape.values())) if isinstance(shape, dict) else shape[0]
    return tuple(shape)
