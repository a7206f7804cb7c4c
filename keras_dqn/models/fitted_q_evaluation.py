"""`FittedQEvaluation`: learns what return a given agent would get, from data of any agent."""

from functools import cached_property
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dqn import ops
from keras_dqn.arguments import check_type
from keras_dqn.backend import compiled
from keras_dqn.layers.noise import drawing
from keras_dqn.models.acting_model import ActingModel
from keras_dqn.models.dqn import DQN
from keras_dqn.replay.replay_dataset import ReplayDataset


@keras.saving.register_keras_serializable(package="keras_dqn")
class FittedQEvaluation(DQN):
    """Learns the action values of a given agent from transitions that any agent has collected.

    ```
    y = reward + discount * Q_target(next_observation, a),  a the agent's greedy action there
    ```

    So the return of an agent is estimated before it acts, from its own old data or that of others.
    Train it with `fit` on one-step transitions (`n_step=1`): the later actions of longer windows
    are not the agent's. The data must have actions like the agent's where the agent would come.
    `value` gives the estimate. The loss is the squared error by default, because the estimate is a
    mean. Another representation of values is a base class:
    `class HLGaussEvaluation(HLGaussDQN, FittedQEvaluation)`.

    Args:
        network: Keras model (or layer) that maps observations to action values `[B, A]`. A new one,
            not that of the agent.
        agent: `DQN` (also a subclass) whose greedy actions are evaluated. It is used itself, not
            copied. It is not trained, and is saved with this model.
        **kwargs: Arguments of `DQN`, without `double` and `munchausen`.

    Raises:
        TypeError: If `agent` is not a `DQN`.
        ValueError: If `agent` is not built or shares weights with `network`, or with `double` or
            `munchausen`, which choose other actions. In training, if the numbers of actions differ,
            or the data has windows of several steps.

    Example:
    >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> agent = DQN(network)
    >>> evaluation = FittedQEvaluation(keras.models.clone_model(network), agent=agent)
    >>> evaluation.compile(keras.optimizers.Adam(1e-3))
    >>> evaluation.value(np.zeros((10, 4), np.float32)).shape  # from ten first observations
    (10,)

    Reference:
        Le et al., 2019, "Batch policy learning under constraints", algorithm 3.
    """

    def __init__(self, network: keras.layers.Layer, *, agent: DQN, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        check_type("agent", agent, ActingModel, "a DQN")
        if self.double or self.munchausen is not None:
            raise ValueError(
                "`double` and `munchausen` must not be given: the next action is the agent's. "
                f"Received: double={self.double}, munchausen={self.munchausen}"
            )
        if not agent.network.built:
            raise ValueError(f"`agent` must be built, as it is after training. Received: {agent=}")
        own = {id(variable) for variable in network.variables}
        if any(id(variable) in own for variable in agent.variables):
            raise ValueError(
                "`network` must share no weight with `agent`, which is not trained. Received: "
                f"{network=}"
            )
        self.agent = agent

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`, including the serialized agent."""
        config = {**super().get_config(), "agent": keras.saving.serialize_keras_object(self.agent)}
        del config["double"], config["munchausen"]
        return config

    @property
    def trainable_variables(self) -> list:
        """The variables that get a gradient: those of `network`."""
        agent = {id(variable) for variable in self.agent.variables}
        return [v for v in super().trainable_variables if id(v) not in agent]

    def choose_next_action(self, next_outputs: Any, next_observation: Any) -> Any:
        """Returns the greedy actions of the agent, `[B]` integer."""
        agent = self.agent
        with drawing(False):  # it acts as `agent.act` does
            outputs = agent.outputs_of(agent.network, agent.inputs_of(next_observation))
        values = agent.allowed_values(outputs, next_observation)
        shape, own = values.shape[1:], self.q_values(next_outputs).shape[1:]
        if shape != own:
            raise ValueError(
                "`network` must have as many actions as `agent`. Received: action values of shape "
                f"{own}, those of the agent {shape}"
            )
        return ops.greedy_action(values)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains the model, as `DQN.fit` does; raises a `ValueError` for `n_step` above 1."""
        if isinstance(x, ReplayDataset) and x.n_step != 1:
            raise ValueError(
                "`n_step` must be 1: the later actions of a window are not the agent's. "
                f"Received: n_step={x.n_step}"
            )
        return super().fit(x, *args, **kwargs)

    def default_loss(self) -> keras.losses.Loss:
        """Returns the squared error: Huber's loss would learn less than the mean of returns."""
        return keras.losses.MeanSquaredError()

    def value(self, observation: Any) -> NDArray[np.float32]:
        """Returns the estimated return of the agent from each observation on.

        Their mean over first observations of episodes estimates the agent's mean return, discounted
        with the `gamma` of the dataset.

        Args:
            observation: `[B, ...]` (or a dict of arrays).

        Returns:
            `[B]` float32.
        """
        observation = keras.tree.map_structure(np.asarray, observation)
        self.build_for(observation)
        return self._compiled_value(observation).numpy()

    @cached_property
    def _compiled_value(self) -> Any:
        def value(observation: Any) -> Any:
            outputs = self(observation, training=False)
            action = self.choose_next_action(outputs, observation)
            taken = ops.take_action(self.q_values(outputs), action)
            return ops.mean_over_branches(taken, 1)

        return compiled(value)
