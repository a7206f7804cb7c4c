"""`DQN`: deep Q-learning as a `keras.Model`; batches are `(observation, transition, weight)`."""

from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dqn import ops
from keras_dqn.arguments import check_bool, check_number
from keras_dqn.backend import compiled
from keras_dqn.layers.noise import drawing
from keras_dqn.models.acting_model import ActingModel
from keras_dqn.models.branches import Rows, rows_of
from keras_dqn.models.checks import check_action_values, check_branches, check_munchausen
from keras_dqn.models.munchausen import Munchausen
from keras_dqn.trainers.batch import Batch, unpack_batch, with_feedback


@keras.saving.register_keras_serializable(package="keras_dqn")
class DQN(ActingModel):
    """Learns action values by Q-learning with a target network, through `model.fit`.

    ```
    y = reward + discount * max_a Q_target(next_observation, a)                      # DQN
    y = reward + discount * Q_target(next_observation, argmax_a Q(next_observation, a))  # double
    loss = mean(weight * huber(y - Q(observation, action)))
    ```

    The target network is a clone of `network`, with equal weights when both are built. It never
    gets a gradient. The callback `SoftTargetUpdate` or the method `update_target` updates it.

    A subclass changes the algorithm by overriding single methods. A new representation of values
    overrides `q_values`, `next_values`, `predict_taken`, `bootstrap`, `td_error`, `priority` and
    `default_loss`, which say what outputs mean. A new rule overrides `choose_next_action`,
    `reward_bonus` or the whole `compute_target`, which say what the target is, or `extra_loss`.

    Args:
        network: Keras model (or layer) that maps observations, a tensor or a (nested) dict, to
            `[B, A]` action values; for a MultiDiscrete space of D branches to `[B, D, A]`. It is
            not copied: `agent.network is network`.
        double: Bool, whether the online network chooses the next action. Defaults to `False`.
        munchausen: `Munchausen`, or None for the target above. It cannot be combined with `double`,
            because its next actions are those of the target network's policy. Defaults to `None`.
        conservative: Float of at least 0, the weight of CQL(H), which is added to the loss. It
            lowers the values of actions that are not in the data; use it for data that the agent
            did not collect. Defaults to `0.0`.
        action_mask: String, the key of the action mask in Dict observations, or None. The mask is
            an integer `[B, A]`, 0 where an action is forbidden. The network does not get it: if
            one other entry is left and its key is `"observation"`, the network gets this entry,
            else the dict without the mask. Forbidden actions are never chosen, neither for the
            environment nor for the target. Defaults to `None`.
        name: String or None.
        **kwargs: Arguments of `keras.Model`, such as `dtype`.

    Attributes:
        action_start: Int or D ints, `start` of the action space.
        branch_sizes: D ints, the choices of each branch if they differ, or None. `fit` reads both
            from the replay buffer, and they are saved. Without a buffer, set them yourself.

    Raises:
        TypeError: If `network` is not a Keras layer, or has no `get_config`, which cloning needs.
        ValueError: If `double` is combined with `munchausen`, or a number is outside its range.

    Example:
    >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> agent = DQN(network, double=True)
    >>> agent.compile(keras.optimizers.Adam(1e-3))
    >>> agent.act(np.zeros((3, 4))).shape
    (3,)

    Reference:
        Mnih et al., 2015, "Human-level control through deep reinforcement learning", Algorithm 1;
        van Hasselt et al., 2016, "Deep reinforcement learning with double Q-learning", equation 4;
        Vieillard et al., 2020, "Munchausen reinforcement learning", equation 1;
        Kumar et al., 2020, "Conservative Q-learning for offline reinforcement learning", eq. 4;
        Tavakoli et al., 2018, "Action branching architectures", equation 5.
    """

    def __init__(
        self,
        network: keras.layers.Layer,
        *,
        double: bool = False,
        munchausen: Munchausen | None = None,
        conservative: float = 0.0,
        action_mask: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, action_mask=action_mask, name=name, **kwargs)
        self.double = check_bool("double", double)
        self.munchausen = check_munchausen(munchausen, double)
        self.conservative = check_number("conservative", conservative, 0.0)
        self._q_value_metric = keras.metrics.Mean("q_value")
        self._td_error_metric = keras.metrics.Mean("abs_td_error")

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        return {
            **super().get_config(),
            "double": self.double,
            "munchausen": keras.saving.serialize_keras_object(self.munchausen),
            "conservative": self.conservative,
        }

    # What the outputs of a network mean: a representation of values overrides these

    def q_values(self, outputs: Any) -> Any:
        """Returns the action values `[B, A]` float32 that a network's outputs stand for."""
        check_action_values(outputs)
        return keras.ops.cast(outputs, "float32")

    def next_values(self, outputs: Any) -> Any:
        """Returns N numbers per action that a rule may average, `[B, A, N]` float32. Here N = 1."""
        return keras.ops.expand_dims(self.q_values(outputs), -1)

    def predict_taken(self, outputs: Any, action: Any) -> Any:
        """Returns the prediction `[B, N]` float32 for the actions taken, `[B]` integer."""
        return ops.take_action(self.next_values(outputs), action)

    def bootstrap(self, transition: dict, next_value: Any) -> Any:
        """Returns the target `[B, N]` for a transition and the next value `[B, N]`."""
        return ops.td_target(transition["reward"], transition["discount"], next_value)

    def td_error(self, target: Any, prediction: Any) -> Any:
        """Returns the expected target - the expected prediction, `[B]` float32, signed."""
        return keras.ops.mean(target, axis=-1) - keras.ops.mean(prediction, axis=-1)

    def priority(self, target: Any, prediction: Any) -> Any:
        """Returns the priority of each row for a prioritized buffer, `[B]` float32: |TD error|."""
        return keras.ops.abs(self.td_error(target, prediction))

    def default_loss(self) -> keras.losses.Loss:
        """Returns the loss that `loss="auto"` stands for; it takes a target and a prediction."""
        return keras.losses.Huber()

    # What the target is: a rule overrides these

    def compute_target(self, observation: Any, transition: dict) -> Any:
        """Returns the TD target `[B, N]` float32; no gradient flows through it.

        Args:
            observation: `[B, ...]`.
            transition: Dict with `action`, `reward`, `discount` and `next_observation`.
        """
        transition, next_observation = self.with_ends(transition), transition["next_observation"]
        next_outputs = self.outputs_of(self.target_network, self.inputs_of(next_observation))
        choice = self.choose_next_action(next_outputs, next_observation)
        next_value = ops.value_of_choice(self.next_values(next_outputs), choice)
        next_value = ops.mean_over_branches(next_value, 2)
        next_value = ops.guard_terminal(next_value, transition["discount"])
        bonus = self.reward_bonus(observation, transition, next_outputs)
        if bonus is not None:
            transition = {**transition, "reward": transition["reward"] + bonus}
        return keras.ops.stop_gradient(self.bootstrap(transition, next_value))

    def choose_next_action(self, next_outputs: Any, next_observation: Any) -> Any:
        """Returns the next actions, `[B]` integer, or weights of all actions, `[B, A]` float32.

        Args:
            next_outputs: The target network's outputs for `next_observation`.
            next_observation: `[B, ...]`.
        """
        if self.double:
            next_outputs = self.outputs_of(self.network, self.inputs_of(next_observation))
        q_values = self.allowed_values(next_outputs, next_observation)
        if self.munchausen is not None:
            return ops.soft_policy(q_values, self.munchausen.temperature)
        return ops.greedy_action(q_values)

    def reward_bonus(self, observation: Any, transition: dict, next_outputs: Any) -> Any:
        """Returns a bonus to add to the rewards, `[B]` float32, or None for no bonus.

        It is None without `munchausen`. With it, the bonus contains the part of the next value that
        is the same for all quantiles or atoms: the discounted entropy of the next policy.
        """
        rule = self.munchausen
        if rule is None:
            return None
        outputs = self.outputs_of(self.target_network, self.inputs_of(observation))
        q_values = self.allowed_values(outputs, observation)
        bonus = ops.munchausen_bonus(q_values, transition["action"], **rule.get_config())
        next_values = self.allowed_values(next_outputs, transition["next_observation"])
        entropy = ops.scaled_entropy(next_values, rule.temperature)
        bonus, entropy = (ops.mean_over_branches(each, 1) for each in (bonus, entropy))
        discount = transition["discount"]
        return bonus + keras.ops.where(discount > 0, discount * entropy, 0.0)

    def extra_loss(self, outputs: Any, action: Any, mask: Any = None) -> Any:
        """Returns a term to add to each row's loss, `[B]` float32, with the same weight.

        It is 0 without `conservative`. `mask` is `[B, A]` integer, or None if all are allowed.
        """
        if not self.conservative:
            return keras.ops.zeros(keras.ops.shape(action)[:1], "float32")
        penalty = ops.conservative_penalty(self.q_values(outputs), action, mask)
        return self.conservative * ops.mean_over_branches(penalty, 1)

    # Training steps

    def train_step(self, data: Any) -> dict:
        """Takes one gradient step on a batch; returns metrics, `td_error` and `priority` `[B]`."""
        batch = unpack_batch(data)
        with drawing():  # layers with noise draw it, once in each pass
            # Before the forward pass: `add_loss` terms are those of the network's last call.
            target = self.compute_target(batch.observation, batch.transition)
            with tf.GradientTape() as tape:
                loss, outputs, rows = self._td_loss(batch, target, training=True)
                scaled_loss = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled_loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        logs = self._update_metrics(batch, loss, outputs, rows)
        td_error, priority = (each(*rows[:2]) for each in (self.td_error, self.priority))
        return with_feedback(logs, rows.mean(td_error), rows.sum(priority))

    def test_step(self, data: Any) -> dict:
        """Computes the loss and the metrics on a batch."""
        batch = unpack_batch(data)
        target = self.compute_target(batch.observation, batch.transition)
        loss, outputs, rows = self._td_loss(batch, target, training=False)
        return self._update_metrics(batch, loss, outputs, rows)

    def _td_loss(self, batch: Batch, target: Any, training: bool) -> tuple[Any, Any, Rows]:
        (observation, _, weight), action = batch, batch.transition["action"]
        outputs = self(observation, training=training)
        check_branches(self.q_values(outputs), action)
        rows = rows_of(action, target, self.predict_taken(outputs, action), weight)
        extra = self.extra_loss(outputs, action, *self.mask_for(self.extra_loss, observation))
        if weight is not None:
            extra = extra * weight
        loss = self.compute_loss(observation, *rows[:3], training=training)
        # Keras divides its part by the number of replicas because it sums their gradients.
        extra_loss = keras.ops.cast(keras.ops.mean(extra) / self.num_replicas, loss.dtype)
        return loss + extra_loss, outputs, rows

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the compiled loss of a target and a prediction.

        Also accepts a transition and outputs: Keras passes them under a distribution strategy.
        """
        y, y_pred, sample_weight = self._target_of(x, y, y_pred, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        """Updates the compiled metrics with the same input; returns the results of all metrics."""
        y, y_pred, sample_weight = self._target_of(x, y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _target_of(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> tuple:
        """Converts a raw batch to target, prediction and weight; passes other input through."""
        if not isinstance(y, dict):
            return y, y_pred, sample_weight
        weight = unpack_batch((x, y, sample_weight)).weight
        # Keras makes this batch as a mean over replicas, which turns integers into floats.
        y = {**y, "action": keras.ops.cast(y["action"], "int32")}
        prediction = self.predict_taken(y_pred, y["action"])
        return rows_of(y["action"], self.compute_target(x, y), prediction, weight)[:3]

    def _update_metrics(self, batch: Batch, loss: Any, outputs: Any, rows: Rows) -> dict:
        taken = ops.take_action(self.q_values(outputs), batch.transition["action"])
        self._q_value_metric.update_state(taken)
        td_error = self.td_error(rows.target, rows.prediction)
        self._td_error_metric.update_state(keras.ops.abs(td_error))
        # Keras' own tracker comes first. It has divided the loss by the number of replicas.
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(loss * self.num_replicas, sample_weight=keras.ops.shape(taken)[0])
        return self.compute_metrics(batch.observation, *rows[:3])

    def td_errors(self, batch: tuple) -> np.ndarray:
        """Returns the signed TD error of each row of a batch, for `update_priorities`.

        Args:
            batch: `(observation, transition, weight)`, as `ReplayBuffer.sample` gives it.

        Returns:
            `[B]` float32, target - prediction.
        """
        return self._compiled_td_errors(*unpack_batch(batch)[:2]).numpy()

    @cached_property
    def _compiled_td_errors(self) -> Any:
        def td_errors(observation: Any, transition: dict) -> Any:
            target = self.compute_target(observation, transition)
            action = transition["action"]
            prediction = self.predict_taken(self(observation, training=False), action)
            rows = rows_of(action, target, prediction, None)
            return rows.mean(self.td_error(*rows[:2]))

        return compiled(td_errors)
