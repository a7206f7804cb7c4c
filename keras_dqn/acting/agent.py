"""What acting needs of a model to read its outputs as action values."""

from typing import Any, Protocol, runtime_checkable

import keras


@runtime_checkable
class Agent(Protocol):
    """A Keras model with a network and a meaning of its outputs; a `DQN` is one.

    Any other model is read as one whose outputs are action values `[B, A]`.

    Attributes:
        network: The Keras model or layer whose weights decide.
        action_start: Int, the environment's action that is 0 inside.
    """

    network: keras.layers.Layer
    action_start: int

    def outputs_of(self, network: Any, observation: Any, training: bool | None = False) -> Any:
        """Returns what a network of the agent's architecture gives for `[B, ...]` observations."""

    def q_values(self, outputs: Any) -> Any:
        """Returns the action values `[B, A]` float32 that these outputs stand for."""

    def policy(self) -> Any:
        """Returns a `Policy` of the agent."""
