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
from keras_dqn.trainers.one_batch import OneBatch
from keras_dqn.trainers.replicas import refuse_many_steps_on_many_replicas, refuse_replicas
from keras_dqn.trainers.step_hooks import hooks_of, train_step_replaced
from keras_dqn.trainers.watch import with_watch
from keras_dqn.trainers.xla import xla_pays


class ReplayTrainer(keras.Model):
    """Trains on replay batches, `steps_per_execution` whole steps in one compiled program per call.

    The results are those of one step at a time on the same batches. Batches from a `ReplayDataset`
    are drawn for all steps of an execution at once; those of any other source are stacked as they
    come, and a smaller last one is an execution of its own.

    A subclass overrides `train_step` and `test_step`, as in any Keras model. `train_step` may
    return `td_error` `[B]` among its logs: it goes to whoever takes the feedback of `fit`, and
    never reaches Keras. What `compile` and `fit` need to know of a subclass they ask for by
    `default_loss`, `known_input_shape`, `check_replay` and `after_epoch`.
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

    # What a subclass says of itself

    def default_loss(self) -> keras.losses.Loss:
        """Returns what `compile(loss="auto")` stands for."""
        raise NotImplementedError

    def known_input_shape(self) -> Any:
        """Returns the input shape to build for, if it is known before the first batch, or None."""
        return None

    def check_replay(self, replay: Any) -> None:
        """Raises a `ValueError` if the model cannot be trained on a buffer; `fit` asks."""

    def after_epoch(self) -> None:
        """Is called after the callbacks of each epoch of `fit`."""

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
            loss: As in Keras; `"auto"` is `default_loss()`, for a `DQN` Huber with delta 1.
            jit_compile: Bool or `"auto"`: XLA unless the model holds convolutions on a machine
                without accelerator, where XLA's are several times slower, or runs eagerly or
                under a distribution strategy. Defaults to `"auto"`.
            run_eagerly: As in Keras.
            **kwargs: `metrics`, `steps_per_execution` (K updates in one compiled program) and
                all other arguments of `keras.Model.compile`.
        """
        check_integer("steps_per_execution", kwargs.get("steps_per_execution", 1))
        input_shape = self.known_input_shape()
        if input_shape is not None and not self.built:
            self.build(input_shape)
        if _is_auto(optimizer):
            optimizer = keras.optimizers.Adam(learning_rate=2.5e-4, epsilon=1.5e-4)
        loss = self.default_loss() if _is_auto(loss) else loss
        self._jit_compile_argument = jit_compile
        self._one_batch = None
        if jit_compile == "auto":
            jit_compile = not run_eagerly and xla_pays(self)
        super().compile(optimizer, loss, jit_compile=jit_compile, run_eagerly=run_eagerly, **kwargs)
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)  # so that it is saved with its state

    def get_compile_config(self) -> dict:
        """Returns the arguments of `compile`, serialized."""
        config = super().get_compile_config()
        if config:
            config["jit_compile"] = self._jit_compile_argument
        return config

    def compile_from_config(self, config: dict) -> None:
        """Compiles the model as `get_compile_config` says."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    # Executions

    def make_train_function(self, force: bool = False) -> Any:
        """Makes `train_function`, which runs one execution of `train_step`s, unless it is there."""
        if self.train_function is None or force:
            refuse_many_steps_on_many_replicas(self)
            step = counted(self, self.train_step)
            if self.num_replicas > 1:
                with train_step_replaced(self, lambda data: step(data)[0]):
                    return super().make_train_function(force)
            self.train_function = Execution(self, step, self._hooks)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes `test_function`, which runs one execution of `test_step`s, unless it is there."""
        if self.test_function is None or force:
            refuse_many_steps_on_many_replicas(self)
            if self.num_replicas > 1:
                return super().make_test_function(force)
            self.test_function = Execution(self, lambda data: (self.test_step(data), None))
        return self.test_function

    def run_alongside(self, function: Callable[[], Any]) -> None:
        """Has a function run beside the compiled program of each execution, until `fit` ends.

        Another thread calls it once an execution, after the batches of the execution were drawn;
        the execution ends when both have. A callback asks for it in `on_train_begin`.

        Args:
            function: Function of no arguments; what it returns is dropped, what it raises ends
                `fit`.

        Raises:
            ValueError: If the model runs on several replicas, in Keras' own loop.
        """
        refuse_replicas(self, "Nothing can run alongside an execution")
        self._hooks.alongside = function

    def feed_back_to(self, update_priorities: Callable[[Any, Any], None]) -> None:
        """Hands the TD errors of batches with a `key` to a function, until `fit` ends.

        On a prioritized `ReplayDataset`, `fit` does so by itself; for other sources a callback asks
        for it in `on_train_begin`.

        Args:
            update_priorities: Function of the keys `[K, B]` and the TD errors `[K, B]`, in NumPy,
                called after each execution.
        """
        self._hooks.feedback = update_priorities

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:  # fmt: skip
        """Takes one training step, as `keras.Model.train_on_batch` does.

        Args:
            x: Observations `[B, ...]` (or a dict of such).
            y: Dict, the transitions: `agent.train_on_batch(*replay.sample(64))`.
            sample_weight: `[B]`, or None.
            class_weight: As in Keras.
            return_dict: As in Keras. The dict also has the signed TD errors of this step,
                `td_error`, and what they count in prioritized replay, `priority`: `[B]` NumPy.
        """
        if class_weight is not None or self.num_replicas > 1 or not self.compiled:
            return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)
        if self._one_batch is None:
            self._one_batch = OneBatch(self)
        logs = self._one_batch((x, y, sample_weight))
        if return_dict:
            return logs
        values = [value for value in logs.values() if isinstance(value, float)]
        return values[0] if len(values) == 1 else values

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
            x: `replay.dataset(...)`, any other `tf.data.Dataset` of such batches, or arrays.
            y: As in Keras, and so are `batch_size`, `epochs`, `verbose` and `callbacks`.
            batch_size: See `y`.
            epochs: See `y`.
            verbose: See `y`.
            callbacks: See `y`.
            **kwargs: Further arguments of `keras.Model.fit`. A replay dataset, like each endless
                one, needs `steps_per_epoch`, updates in an epoch: any number, the last execution
                makes those that are left.

        Raises:
            ValueError: If `steps_per_epoch` is missing, or outputs and action space do not fit.
        """
        check_data(x)
        steps_per_epoch = kwargs.get("steps_per_epoch")
        check_steps("steps_per_epoch", x, steps_per_epoch)
        check_executions_end(x, steps_per_epoch, self.steps_per_execution)
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras warns of its own default
        validation_data, steps = kwargs.get("validation_data"), kwargs.get("validation_steps")
        if isinstance(validation_data, tf.data.Dataset):
            check_steps("validation_steps", validation_data, steps)
            kwargs["validation_data"] = drawn_in_executions(self, validation_data, steps)
        with self._hooks.one_fit():
            if isinstance(x, ReplayDataset):
                self.check_replay(x.replay)
                self._hooks.replay = x.replay
                if isinstance(x.replay, TakesPriorities):
                    refuse_replicas(self, "Priorities cannot be fed back")
                    self.feed_back_to(x.replay.update_priorities)
            x = drawn_in_executions(self, x, None)
            callbacks = with_watch(callbacks, verbose)
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

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
            x: `replay.dataset(...)`, any other `tf.data.Dataset` of such batches, or arrays.
            y: As in Keras, and so are `batch_size`, `verbose` and `sample_weight`.
            batch_size: See `y`.
            verbose: See `y`.
            sample_weight: See `y`.
            steps: Int, the number of batches; an endless dataset needs it. Defaults to `None`.
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
            x: As in Keras, and so are `batch_size`, `verbose` and `callbacks`.
            batch_size: See `x`.
            verbose: See `x`.
            steps: Int or None, the number of batches; an endless dataset needs it.
            callbacks: See `x`.

        Raises:
            ValueError: If `steps` is missing on an endless dataset.
        """
        check_data(x)
        check_steps("steps", x, steps)
        return super().predict(x, batch_size, verbose, steps, callbacks)


def _is_auto(argument: Any) -> bool:
    return isinstance(argument, str) and argument == "auto"
