"""`Policy`: computes action values with a copy of a network's weights, NumPy in and NumPy out."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dqn.acting.agent import Agent
from keras_dqn.acting.exploration import draw_noise
from keras_dqn.acting.host_policy import HostPolicy
from keras_dqn.acting.litert_program import narrow
from keras_dqn.acting.noise import noise_size_of, noisy_layers
from keras_dqn.acting.observations import leaves_of
from keras_dqn.acting.programs import Programs, host_program_of
from keras_dqn.arguments import check_bool, check_type
from keras_dqn.layers.noise import noise_given
from keras_dqn.spaces.action_mask import (
    check_some_allowed,
    forbid,
    forbid_missing,
    mask_of,
    without_mask,
)
from keras_dqn.spaces.action_spec import greedy_actions


class Policy:
    """Acts with the weights that a network had at the last `refresh`.

    One of three programs computes the values. They equal the network's values to 1e-5.

    - LiteRT, if the extra `fast` is installed and it makes this network faster (the module
      `litert_converter` states the rule): a few microseconds a call.
    - NumPy, for other stacks of Dense layers: about ten microseconds.
    - One compiled call, for all other networks: a few hundred microseconds.

    A pickled policy holds the weights and the config of its model, but no program and no target
    network. Another process can act with it, and can set new weights with `set_weights`. The policy
    that `host_policy` makes needs no Keras there.

    Args:
        model: A `DQN`, or any built Keras model that maps observations to `[B, A]` action values.

    Attributes:
        backend: `"litert"`, `"numpy"` or `"compiled"`. Without LiteRT it is also `"compiled"`
            before the first call.
        backend_reason: String, why the backend is not `"litert"`; empty if it is `"litert"`.
        action_mask: String, the key of the action mask in observations, or None.
    """

    def __init__(self, model: keras.Model) -> None:
        check_type("model", model, keras.layers.Layer, "a DQN or another Keras model")
        self._model: Any = model
        self._of_agent = isinstance(model, Agent)  # once: a check of a protocol costs 8 us
        self._network: Any = model.network if isinstance(model, Agent) else model
        self.action_mask: str | None = model.action_mask if isinstance(model, Agent) else None
        self._programs = Programs(self._values_of, self._network)
        self._noisy_programs = Programs(self._noisy_values_of, self._network)
        self._noise_size = 0
        self.refresh()

    @property
    def backend(self) -> str:
        """The kind of program that computes the values."""
        return self._programs.backend

    @property
    def backend_reason(self) -> str:
        """Why the backend is not `"litert"`; empty if it is `"litert"`."""
        return self._programs.reason

    def __call__(self, observation: Any) -> NDArray[np.int64]:
        """Returns the greedy actions, `[E]` int64, for observations `[E, ...]`.

        Actions of an agent can be passed to `env.step`. Actions of another model start at 0.

        Raises:
            ValueError: If an action mask leaves no action.
        """
        start = np.array(self._model.action_start if self._of_agent else 0)
        values = self.action_values(observation)
        if self.action_mask is not None:
            check_some_allowed(values != -np.inf)
        return greedy_actions(values) + start

    def action_values(self, observation: Any) -> NDArray[np.float32]:
        """Returns `[E, A]` float32 for observations `[E, ...]` (or a dict of arrays).

        The value is -inf where the action mask is 0. For D branches the shape is `[E, D, A]`, and
        the value is -inf where a branch has fewer than A actions.
        """
        if self.action_mask is not None:
            mask = mask_of(observation, self.action_mask)
            values = self._values(without_mask(observation, self.action_mask))
            return forbid(self._existing(values), mask)
        return self._existing(self._values(observation))

    def _existing(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return forbid_missing(values, self._model.branch_sizes) if self._of_agent else values

    def _values(self, observation: Any) -> NDArray[np.float32]:
        if isinstance(observation, np.ndarray):
            key: tuple = (observation.shape, observation.dtype.char)
        else:
            observation = keras.tree.map_structure(np.asarray, observation)
            leaves = keras.tree.flatten(observation)
            key = tuple((leaf.shape, leaf.dtype.char) for leaf in leaves)
        program = self._programs.get(key)
        if program is None:
            self._build_for(observation)
            program = self._programs.make(key, self._weights, observation)
        return program(observation)

    def noisy_action_values(
        self, observation: Any, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Returns `[E, A]` float32, with new noise in all `NoisyDense` layers.

        Args:
            observation: `[E, ...]` (or a dict of arrays).
            rng: The generator of the noise. Each environment gets a draw of its own.

        Raises:
            ValueError: If the network has no `NoisyDense` layer.
        """
        if self.action_mask is not None:
            mask = mask_of(observation, self.action_mask)
            values = self._noisy_values(without_mask(observation, self.action_mask), rng)
            return forbid(self._existing(values), mask)
        return self._existing(self._noisy_values(observation, rng))

    def _noisy_values(self, observation: Any, rng: np.random.Generator) -> NDArray[np.float32]:
        observation = keras.tree.map_structure(np.asarray, observation)
        if not self._noise_size:
            self._build_for(observation)
            self._noise_size = noise_size_of(self._network)
        noise = draw_noise(len(keras.tree.flatten(observation)[0]), self._noise_size, rng)
        inputs = [noise, observation]
        key = tuple((leaf.shape, leaf.dtype.char) for leaf in keras.tree.flatten(inputs))
        program = self._noisy_programs.get(key)
        if program is None:
            program = self._noisy_programs.make(key, self._weights, inputs)
        return program(inputs)

    def host_policy(self, observation: Any, *, noisy: bool = False) -> HostPolicy:
        """Returns a copy of the policy for processes that have neither Keras nor TensorFlow.

        It uses LiteRT, also for convolutions, if it is installed here, all layers compute in
        float32 and LiteRT can convert the network for any number of environments. The other
        process then needs LiteRT too. In all other cases it uses NumPy.

        Args:
            observation: `[E, ...]` (or a dict or tuple of arrays), an example of the observations.
                Only `E` may differ later.
            noisy: Bool, whether the copy also has `noisy_action_values`. Defaults to `False`.

        Raises:
            NotImplementedError: If neither LiteRT nor NumPy can compute the values.
            ValueError: If `noisy` is True and the network has no `NoisyDense` layer.
        """
        key = self.action_mask
        observation = keras.tree.map_structure(
            lambda leaf: narrow(np.asarray(leaf)), without_mask(observation, key)
        )
        self._build_for(observation)
        network, weights = self._network, self._weights
        size = noise_size_of(network) if check_bool("noisy", noisy) else 0
        sizes = self._model.branch_sizes if self._of_agent else None
        program = host_program_of(self._values_of, network, weights, observation)
        if not noisy:
            return HostPolicy(program, weights, observation, action_mask=key, branch_sizes=sizes)
        inputs = [np.zeros((len(leaves_of(observation)[0]), size), np.float32), observation]
        noisy_program = host_program_of(self._noisy_values_of, network, weights, inputs)
        return HostPolicy(program, weights, observation, noisy_program, size, key, sizes)

    # Weights

    def refresh(self) -> None:
        """Reads the network's weights again."""
        self.set_weights([variable.numpy() for variable in self._network.variables])

    def get_weights(self) -> list[NDArray]:
        """Returns the weights of the snapshot, in the order of the network's `variables`."""
        return self._weights

    def set_weights(self, weights: list[NDArray]) -> None:
        """Uses these weights until the next `refresh`; the weights of the network do not change.

        Args:
            weights: List of arrays, as `get_weights` returns them.

        Raises:
            ValueError: If their shapes differ from those of the network's `variables`.
        """
        shapes = [tuple(variable.shape) for variable in self._network.variables]
        received = [np.shape(weight) for weight in weights]
        if received != shapes:
            raise ValueError(f"`weights` must have the shapes {shapes}. Received: {received}")
        self._weights = weights
        self._programs.set_weights(weights)
        self._noisy_programs.set_weights(weights)

    def __getstate__(self) -> dict[str, Any]:
        """Returns the config and the weights, with which another process can act."""
        config = keras.saving.serialize_keras_object(self._model)
        config.pop("compile_config", None)
        return {"config": config, "weights": self._weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Unpickling can run code anyway, so Lambda layers may run theirs too.
        model = keras.saving.deserialize_keras_object(state["config"], safe_mode=False)
        network = model.network if isinstance(model, Agent) else model
        for variable, weight in zip(network.variables, state["weights"], strict=True):
            variable.assign(weight)
        self.__init__(model)  # type: ignore[misc]

    # Programs

    def _build_for(self, observation: Any) -> None:
        if not self._network.built:
            self._outputs_of(observation)
            self.refresh()

    def _values_of(self, weights: list, observation: Any) -> Any:
        variables = self._network.variables
        values = [keras.ops.convert_to_tensor(weight) for weight in weights]
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            outputs = self._outputs_of(observation)
            return self._model.q_values(outputs) if self._of_agent else outputs

    def _noisy_values_of(self, weights: list, inputs: Any) -> Any:
        noise, observation = inputs
        with noise_given(noisy_layers(self._network), noise):
            return self._values_of(weights, observation)

    def _outputs_of(self, observation: Any) -> Any:
        if self._of_agent:
            return self._model.outputs_of(self._network, observation)
        return self._network(observation, training=False)


def policy_of(model: keras.Model) -> Policy:
    """Returns an agent's own `policy()`, or a policy over the outputs `[B, A]` of another model."""
    return model.policy() if isinstance(model, Agent) else Policy(model)
