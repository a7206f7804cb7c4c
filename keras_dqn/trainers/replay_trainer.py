"""`ReplayTrainer`: a `keras.Model` whose `fit` runs K training steps in one compiled program."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_dqn.arguments import check_integer
from keras_dqn.replay.protocols import TakesPriorities
from keras_dqn.replay.replay_dataset import ReplayDataset
from keras_dqn.trainers.execution import Execution, counted
from keras_dqn.trainers.fit_data import (
    check_data,
    check_executions_end,
    check_steps,
    drawn_in_executions,
)
from keras_dqn.trainers.one_batch import OneBatch, values_in_order
from keras_dqn.trainers.replicas import refuse_many_steps_on_many_replicas, refuse_replicas
from keras_dqn.trainers.resuming import resumed
from keras_dqn.trainers.step_hooks import hooks_of, train_step_replaced
from keras_dqn.trainers.watch import with_watch
from keras_dqn.trainers.xla import xla_pays


class ReplayTrainer(keras.Model):
    """Trains on replay batches; one compiled program runs `steps_per_execution` training steps.

    The results equal those of single steps on the same batches. A `ReplayDataset` draws the batches
    for all steps of an execution at once. Batches of any other source are stacked in their order;
    a smaller last batch runs separately.

    A subclass overrides `train_step` and `test_step`, as in any Keras model. `train_step` may
    return `td_error` `[B]` in its logs: `fit` passes it to the feedback function, not to Keras.
    `compile` and `fit` call five more methods that a subclass may override: `default_loss`,
    `check_loss`, `known_input_shape`, `check_replay` and `after_epoch`.
    """

    train_function: Any
    test_function: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.update_count = self.add_weight(
            name="update_count", dtype="int64", initializer="zeros", trainable=False
        )
        self._jit_compile_argument: bool | str = "auto"
        self._one_batch: OneBatch | None = None
        self._hooks = hooks_of(self)

    # Methods that a subclass may override

    def default_loss(self) -> keras.losses.Loss:
        """Returns the loss that `compile(loss="auto")` uses."""
        raise NotImplementedError

    def check_loss(self, loss: Any) -> None:
        """Raises a `ValueError` if a loss does not fit the predictions; `compile` calls it."""

    def known_input_shape(self) -> Any:
        """Returns the input shape if it is known before the first batch, otherwise None."""
        return None

    def check_replay(self, replay: Any) -> None:
        """Raises a `ValueError` if the model cannot be trained on a buffer; `fit` calls it."""

    def after_epoch(self) -> None:
        """Does nothing here; `fit` calls it after the callbacks of each epoch."""

    @property
    def num_replicas(self) -> int:
        """The number of replicas of the distribution strategy; 1 without one."""
        return self.distribute_strategy.num_replicas_in_sync

    # Compiling

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        jit_compile: bool | str = "auto",
        run_eagerly: bool = False,
        **kwargs: Any,
    ) -> None:
        """Configures the model for training, as `keras.Model.compile` does.

        Args:
            optimizer: As in Keras; `"auto"` is `Adam(learning_rate=2.5e-4, epsilon=1.5e-4)`.
            loss: As in Keras; `"auto"` is `default_loss()`: Huber with delta 1 for a `DQN`.
            jit_compile: Bool or `"auto"`: XLA, except for eager runs, several replicas, layers that
                XLA cannot compile, and convolutions on a machine without accelerator (there XLA is
                several times slower). Defaults to `"auto"`.
            run_eagerly: As in Keras.
            **kwargs: `metrics`, `steps_per_execution` (updates K in one compiled program) and
                all other arguments of `keras.Model.compile`.
        """
        check_integer("steps_per_execution", kwargs.get("steps_per_execution", 1))
        input_shape = self.known_input_shape()
        if input_shape is not None and not self.built:
            self.build(input_shape)
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = keras.optimizers.Adam(learning_rate=2.5e-4, epsilon=1.5e-4)
        if isinstance(loss, str) and loss == "auto":
            loss = self.default_loss()
        else:
            self.check_loss(loss)
        self._jit_compile_argument = jit_compile
        self._one_batch = None
        if jit_compile == "auto":
            jit_compile = not run_eagerly and xla_pays(self)
        super().compile(optimizer, loss, jit_compile=jit_compile, run_eagerly=run_eagerly, **kwargs)
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)  # a saved file then holds its state

    def get_compile_config(self) -> dict:
        """Returns the arguments of `compile`, serialized."""
        config = super().get_compile_config()
        if config:
            config["jit_compile"] = self._jit_compile_argument
        return config

    def compile_from_config(self, config: dict) -> None:
        """Compiles the model with the arguments that `get_compile_config` returned."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    # Executions

    def make_train_function(self, force: bool = False) -> Any:
        """Makes `train_function`, which runs K calls of `train_step`, unless it already exists."""
        if self.train_function is None or force:
            refuse_many_steps_on_many_replicas(self)
            step = counted(self, self.train_step)
            if self.num_replicas > 1:
                with train_step_replaced(self, lambda data: step(data)[0]):
                    return super().make_train_function(force)
            self.train_function = Execution(self, step, self._hooks)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes `test_function`, which runs K calls of `test_step`, unless it already exists."""
        if self.test_function is None or force:
            refuse_many_steps_on_many_replicas(self)
            if self.num_replicas > 1:
                return super().make_test_function(force)
            self.test_function = Execution(self, lambda data: (self.test_step(data), None))
        return self.test_function

    def run_alongside(self, function: Callable[[], Any]) -> None:
        """Runs a function in parallel to the compiled program of each execution, until `fit` ends.

        A second thread calls it once per execution, after the batches of the execution were drawn.
        The execution ends when both have ended. A callback calls this method in `on_train_begin`.

        Args:
            function: Function of no arguments. Its return value is ignored; if it raises an error,
                `fit` ends.

        Raises:
            ValueError: If the model runs on several replicas, in Keras' own loop.
        """
        refuse_replicas(self, "Nothing can run alongside an execution")
        self._hooks.alongside = function

    def feed_back_to(self, update_priorities: Callable[[Any, Any], None]) -> None:
        """Passes the TD errors of batches with a `key` to a function, until `fit` ends.

        For a prioritized `ReplayDataset`, `fit` calls this method itself. For other sources a
        callback calls it in `on_train_begin`.

        Args:
            update_priorities: Function of the keys `[K, B]` and the TD errors `[K, B]`, in NumPy;
                it is called after each execution.
        """
        self._hooks.feedback = update_priorities

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:  # fmt: skip
        """Takes one training step, as `keras.Model.train_on_batch` does.

        Args:
            x: Observations `[B, ...]` (or a dict of arrays).
            y: Dict, the transitions: `agent.train_on_batch(*replay.sample(64))`.
            sample_weight: `[B]`, or None.
            class_weight: As in Keras.
            return_dict: As in Keras. The dict also has `td_error`, the signed TD errors of this
                step, and `priority`, their priorities for prioritized replay: `[B]` NumPy.
        """
        if class_weight is not None or self.num_replicas > 1 or not self.compiled:
            return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)
        if self._one_batch is None:
            self._one_batch = OneBatch(self)
        logs = self._one_batch((x, y, sample_weight))
        return logs if return_dict else values_in_order(self, logs)

    # Datasets

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains the model, as `keras.Model.fit` does.

        Warns once, after the first epoch, if nothing has updated the target network.

        Args:
            x: `replay.dataset(...)`, another `tf.data.Dataset` of such batches, or arrays.
            y: As in Keras.
            batch_size: As in Keras.
            epochs: As in Keras.
            verbose: As in Keras.
            callbacks: As in Keras.
            **kwargs: Further arguments of `keras.Model.fit`. A replay dataset is endless, so it
                needs `steps_per_epoch`: updates per epoch. It may be any number; the last
                execution of an epoch runs the updates that are left.

        Raises:
            ValueError: If `steps_per_epoch` is missing, or the network's outputs do not match the
                action space.
        """
        check_data(x)
        steps_per_epoch = kwargs.get("steps_per_epoch")
        check_steps("steps_per_epoch", x, steps_per_epoch)
        check_executions_end(x, steps_per_epoch, self.steps_per_execution)
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # with its default, Keras gives a warning
        validation_data, steps = kwargs.get("validation_data"), kwargs.get("validation_steps")
        if isinstance(validation_data, tf.data.Dataset):
            check_steps("validation_steps", validation_data, steps)
            kwargs["validation_data"] = drawn_in_executions(self, validation_data, steps)
        with self._hooks.one_fit():
            if isinstance(x, ReplayDataset):
                self.check_replay(x.replay)
                self._hooks.dataset = x
                if isinstance(x.replay, TakesPriorities):
                    refuse_replicas(self, "Priorities cannot be fed back")
                    self.feed_back_to(x.replay.update_priorities)
            drawn = drawn_in_executions(self, x, None)
            callbacks = with_watch(callbacks, verbose)
            data = (x, validation_data)
            with resumed(self, data, epochs, verbose, callbacks, kwargs) as (callbacks, kwargs):
                return super().fit(drawn, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Computes the loss and the metrics, as `keras.Model.evaluate` does.

        Args:
            x: `replay.dataset(...)`, another `tf.data.Dataset` of such batches, or arrays.
            y: As in Keras.
            batch_size: As in Keras.
            verbose: As in Keras.
            sample_weight: As in Keras.
            steps: Int or None, batches; an endless dataset needs a number. Defaults to `None`.
            **kwargs: Further arguments of `keras.Model.evaluate`.

        Raises:
            ValueError: If `steps` is missing on an endless dataset.
        """
        check_steps("steps", x, steps)
        x = drawn_in_executions(self, x, steps)
        return super().evaluate(x, y, batch_size, verbose, sample_weight, steps, **kwargs)

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: Any = "auto", steps: Any = None,
        callbacks: Any = None,
    ) -> Any:  # fmt: skip
        """Returns the outputs of the network, as `keras.Model.predict` does.

        Args:
            x: As in Keras.
            batch_size: As in Keras.
            verbose: As in Keras.
            steps: Int or None, batches; an endless dataset needs a number. Defaults to `None`.
            callbacks: As in Keras.

        Raises:
            ValueError: If `steps` is missing on an endless dataset.
        """
        check_data(x)
        check_steps("steps", x, steps)
        return super().predict(x, batch_size, verbose, steps, callbacks)
