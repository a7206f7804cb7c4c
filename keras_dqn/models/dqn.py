"""`DQN`: deep Q-learning as a `keras.Model`; batches are `(observation, transition, weight)`."""

from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dqn import ops
from keras_dqn.models.acting_model import ActingModel
from keras_dqn.replay.replay_dataset import ReplayDataset
from keras_dqn.trainers.execution import Batch, unpack_batch

if keras.config.backend() != "tensorflow":
    raise ImportError(
        "keras_dqn needs Keras' TensorFlow backend: set KERAS_BACKEND=tensorflow before Keras is "
        f"imported. Received: keras.config.backend()={keras.config.backend()!r}"
    )


@keras.saving.register_keras_serializable(package="keras_dqn")
class DQN(ActingModel):
    """Learns action values by Q-learning with a target network, through `model.fit`.

    ```
    y = reward + discount * max_a Q_target(next_observation, a)                      # DQN
    y = reward + discount * Q_target(next_observation, argmax_a Q(next_observation, a))  # double
    loss = mean(weight * huber(y - Q(observation, action)))
    ```

    The target network is a clone of `network`, equal to it when both are built. It follows only
    when told to: put `SoftTargetUpdate` among the callbacks of `fit`, or call `update_target`. It
    never gets a gradient, whatever is set on `trainable`.

    A subclass changes the algorithm by overriding one decision. Another representation of values
    says what outputs mean: `q_values`, `next_values`, `predict_taken`, `bootstrap`, `td_error`,
    `priority` and `default_loss`. Another rule says what the target is: `choose_next_action`,
    `reward_bonus` or the whole `compute_target`; or it adds an `extra_loss`.

    Args:
        network: Keras model (or layer) that maps observations, a tensor or a (nested) dict, to
            `[B, A]` action values. It stays yours: `agent.network is network`.
        double: Bool, whether the online network chooses the next action. Defaults to `False`.
        name: String or None.
        **kwargs: Arguments of `keras.Model`, such as `dtype`.

    Raises:
        TypeError: If `network` is not a Keras layer, or cannot be cloned for want of `get_config`.

    Example:
    >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> agent = DQN(network, double=True)
    >>> agent.compile(keras.optimizers.Adam(1e-3))
    >>> agent.act(np.zeros((3, 4))).shape
    (3,)

    Reference:
        Mnih et al., 2015, "Human-level control through deep reinforcement learning", Algorithm 1;
        van Hasselt et al., 2016, "Deep reinforcement learning with double Q-learning", equation 4.
    """

    def __init__(
        self,
        network: keras.layers.Layer,
        *,
        double: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, name=name, **kwargs)
        self.double = double
        self._q_value_metric = keras.metrics.Mean("q_value")
        self._td_error_metric = keras.metrics.Mean("abs_td_error")

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "double": self.double}

    # What the outputs of a network mean: a representation of values overrides these

    def q_values(self, outputs: Any) -> Any:
        """Returns the action values `[B, A]` float32 that a network's outputs stand for."""
        if len(outputs.shape) != 2:
            raise ValueError(
                "`network` must map observations to action values of shape [B, A]. Received: "
                f"outputs of shape {tuple(outputs.shape)}"
            )
        return keras.ops.cast(outputs, "float32")

    def next_values(self, outputs: Any) -> Any:
        """Returns what is bootstrapped from, for each action, `[B, A, N]` float32.

        It is what may be averaged over actions: here the value, N = 1.
        """
        return keras.ops.expand_dims(self.q_values(outputs), -1)

    def predict_taken(self, outputs: Any, action: Any) -> Any:
        """Returns the prediction `[B, N]` float32 for the actions taken, `[B]` integer."""
        return ops.take_action(self.next_values(outputs), action)

    def bootstrap(self, transition: dict, next_value: Any) -> Any:
        """Returns the target `[B, N]` of a transition and what follows it, `[B, N]`."""
        return ops.td_target(transition["reward"], transition["discount"], next_value)

    def td_error(self, target: Any, prediction: Any) -> Any:
        """Returns the expected target - the expected prediction, `[B]` float32.

        It is signed, unweighted and in units of return.
        """
        return keras.ops.mean(target, axis=-1) - keras.ops.mean(prediction, axis=-1)

    def priority(self, target: Any, prediction: Any) -> Any:
        """Returns what a prioritized buffer is told of each row, `[B]` float32: |TD error|."""
        return keras.ops.abs(self.td_error(target, prediction))

    def default_loss(self) -> keras.losses.Loss:
        """Returns the loss of a target and a prediction that `loss="auto"` stands for."""
        return keras.losses.Huber()

    # What the target says: a rule overrides these

    def compute_target(self, observation: Any, transition: dict) -> Any:
        """Returns the TD target `[B, N]` float32; nothing differentiates through it.

        Args:
            observation: `[B, ...]`.
            transition: Dict with `action`, `reward`, `discount` and `next_observation`.
        """
        next_observation = transition["next_observation"]
        next_outputs = self.outputs_of(self.target_network, next_observation)
        choice = self.choose_next_action(next_outputs, next_observation)
        next_value = ops.value_of_choice(self.next_values(next_outputs), choice)
        next_value = ops.guard_terminal(next_value, transition["discount"])
        bonus = self.reward_bonus(observation, transition, next_outputs)
        if bonus is not None:
            transition = {**transition, "reward": transition["reward"] + bonus}
        return keras.ops.stop_gradient(self.bootstrap(transition, next_value))

    def choose_next_action(self, next_outputs: Any, next_observation: Any) -> Any:
        """Returns which action follows: `[B]` integer, or the weights `[B, A]` float32 of a mix.

        Args:
            next_outputs: What the target network gives for `next_observation`.
            next_observation: `[B, ...]`.
        """
        if self.double:
            next_outputs = self.outputs_of(self.network, next_observation)
        return ops.greedy_action(self.q_values(next_outputs))

    def reward_bonus(self, observation: Any, transition: dict, next_outputs: Any) -> Any:
        """Returns what to add to the rewards, `[B]` float32, or None for nothing, as here."""
        return None

    def extra_loss(self, outputs: Any, action: Any) -> Any:
        """Returns what to add to each row's loss, `[B]` float32, weighted like it. Zero here."""
        return keras.ops.zeros(keras.ops.shape(action), "float32")

    # Training steps

    def train_step(self, data: Any) -> dict:
        """Takes one gradient step on a batch and returns the metrics."""
        batch = unpack_batch(data)
        # Before the forward pass: `add_loss` terms are those of the last call of the network.
        target = self.compute_target(batch.observation, batch.transition)
        with tf.GradientTape() as tape:
            loss, outputs, prediction = self._td_loss(batch, target, training=True)
            scaled_loss = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled_loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._update_metrics(batch, target, loss, outputs, prediction)

    def test_step(self, data: Any) -> dict:
        """Computes the loss and the metrics on a batch."""
        batch = unpack_batch(data)
        target = self.compute_target(batch.observation, batch.transition)
        loss, outputs, prediction = self._td_loss(batch, target, training=False)
        return self._update_metrics(batch, target, loss, outputs, prediction)

    def _td_loss(self, batch: Batch, target: Any, training: bool) -> tuple[Any, Any, Any]:
        observation, transition, weight = batch
        outputs = self(observation, training=training)
        prediction = self.predict_taken(outputs, transition["action"])
        check_ranks(target, prediction)
        extra = self.extra_loss(outputs, transition["action"])
        if weight is not None:
            extra = extra * weight
        loss = self.compute_loss(observation, target, prediction, weight, training=training)
        # Keras has divided its part by the number of replicas, whose gradients are added up.
        extra_loss = keras.ops.mean(extra) / self.distribute_strategy.num_replicas_in_sync
        return loss + extra_loss, outputs, prediction

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the compiled loss of a target and a prediction, or of a transition and outputs.

        Keras itself asks for the latter, to build the loss, under a distribution strategy.
        """
        y, y_pred, sample_weight = self._target_of(x, y, y_pred, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        """Updates the compiled metrics with the same, and returns all metrics' results."""
        y, y_pred, sample_weight = self._target_of(x, y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _target_of(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> tuple:
        """Returns target, prediction and weight for those, or for what a batch holds."""
        if not isinstance(y, dict):
            return y, y_pred, sample_weight
        batch = unpack_batch((x, y, sample_weight))
        # Keras draws this batch as a mean over replicas, in which integers have become floats.
        action = keras.ops.cast(y["action"], "int32")
        target = self.compute_target(x, {**y, "action": action})
        return target, self.predict_taken(y_pred, action), batch.weight

    def _update_metrics(
        self, batch: Batch, target: Any, loss: Any, outputs: Any, prediction: Any
    ) -> dict:
        observation, transition, weight = batch
        taken = ops.take_action(self.q_values(outputs), transition["action"])
        self._td_error_of_step = self.priority(target, prediction)
        self._q_value_metric.update_state(taken)
        self._td_error_metric.update_state(keras.ops.abs(self.td_error(target, prediction)))
        for metric in self.metrics:
            if metric.name == "loss":
                # Under a strategy Keras has divided the loss by the number of replicas.
                num_replicas = self.distribute_strategy.num_replicas_in_sync
                metric.update_state(loss * num_replicas, sample_weight=keras.ops.shape(taken)[0])
        return self.compute_metrics(observation, target, prediction, sample_weight=weight)

    # Training

    def compile(self, optimizer: Any = "auto", loss: Any = "auto", **kwargs: Any) -> None:
        """Configures the agent for training, as `keras.Model.compile` does.

        Args:
            optimizer: `"auto"` is `Adam(learning_rate=2.5e-4, epsilon=1.5e-4)`. Defaults to
                `"auto"`.
            loss: `"auto"` is `default_loss()`, Huber with delta 1. Defaults to `"auto"`.
            **kwargs: `metrics`, `steps_per_execution` (K updates in one compiled program),
                `jit_compile`, `run_eagerly` and all else that `keras.Model.compile` takes.
        """
        if optimizer == "auto":
            optimizer = keras.optimizers.Adam(learning_rate=2.5e-4, epsilon=1.5e-4)
        if loss == "auto":
            loss = self.default_loss()
        super().compile(optimizer, loss, **kwargs)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains the agent, as `keras.Model.fit` does.

        Warns once, after the first epoch, if nothing has updated the target network.

        Args:
            x: `replay.dataset(...)`, any other `tf.data.Dataset` of such batches, or arrays.
            *args: Further arguments of `keras.Model.fit`.
            **kwargs: Further arguments of `keras.Model.fit`. `steps_per_epoch` has to be a multiple
                of `steps_per_execution`; an endless dataset, and a replay dataset is one, needs it.

        Raises:
            ValueError: If `steps_per_epoch` is missing or no such multiple, or the network's output
                does not fit the action space of the replay buffer.
        """
        if isinstance(x, ReplayDataset):
            self._check_outputs_fit(x)
        return super().fit(x, *args, **kwargs)

    def _check_outputs_fit(self, dataset: ReplayDataset) -> None:
        observation, _, _ = dataset.element_spec
        self.build_for(observation)
        inputs = tf.nest.map_structure(
            lambda spec: keras.KerasTensor(spec.shape, spec.dtype.name), observation
        )
        try:
            outputs = self.compute_output_spec(inputs)
        except Exception as error:
            raise ValueError(
                "`network` must take the observations of the replay buffer. Received: observations "
                f"{observation}, which it refuses: {error}"
            ) from error
        num_values = self.q_values(outputs).shape[-1]
        action_space: Any = dataset.replay.action_space
        num_actions = int(action_space.n)
        if num_values != num_actions:
            raise ValueError(
                f"`network` must give one value for each of the {num_actions} actions of the "
                f"replay buffer's action space. Received: {num_values} values"
            )

    def td_errors(self, batch: tuple) -> np.ndarray:
        """Returns the signed TD error of each row of a batch, for `update_priorities`.

        Args:
            batch: `(observation, transition, weight)`, as `ReplayBuffer.sample` gives it.

        Returns:
            `[B]` float32, target - prediction.
        """
        observation, transition, _ = unpack_batch(batch)
        return self._compiled_td_errors(observation, transition).numpy()

    @cached_property
    def _compiled_td_errors(self) -> Any:
        @tf.function(autograph=False, reduce_retracing=True)
        def td_errors(observation: Any, transition: dict) -> tf.Tensor:
            target = self.compute_target(observation, transition)
            outputs = self(observation, training=False)
            return self.td_error(target, self.predict_taken(outputs, transition["action"]))

        return td_errors


def check_ranks(target: Any, prediction: Any) -> None:
    """Raises a `ValueError` for a `[B]` target or prediction: Keras would average weights away."""
    for name, tensor in (("compute_target", target), ("predict_taken", prediction)):
        if len(tensor.shape) < 2:
            raise ValueError(
                f"`{name}` must return a tensor of shape [B, 1] or [B, N]: a Keras loss takes its "
                "mean over the last axis before it applies the weights. Received: shape="
                f"{tuple(tensor.shape)}"
            )
