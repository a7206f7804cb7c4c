"""The protocol by which acting reads the outputs of a model as action values."""

from typing import Any, Protocol, runtime_checkable

import keras


@runtime_checkable
class Agent(Protocol):
    """A Keras model with a network and a rule that turns its outputs into action values.

    A `DQN` is one. The outputs of any other model are taken as action values `[B, A]`.

    Attributes:
        network: The Keras model or layer that computes the outputs.
        action_start: Int, the environment's action that has the number 0 in the package, or a
            tuple of D ints for D branches.
        branch_sizes: Tuple of ints, the actions of each branch if they are not equal, or None.
        action_mask: String, the key of the action mask in observations, or None.
    """

    network: keras.layers.Layer
    action_start: Any
    branch_sizes: tuple[int, ...] | None
    action_mask: str | None

    def outputs_of(self, network: Any, observation: Any, training: bool | None = False) -> Any:
        """Returns the outputs of a network of this architecture for `[B, ...]` observations."""

    def q_values(self, outputs: Any) -> Any:
        """Returns the action values `[B, A]` float32 that these outputs stand for."""

    def policy(self) -> Any:
        """Returns a `Policy` of the agent."""
