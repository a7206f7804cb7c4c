"""A `keras.Model` whose `fit` and `evaluate` run K steps in one compiled program."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_dqn.networks.inspection import has_convolutions, layers_of
from keras_dqn.replay.replay_dataset import ReplayDataset
from keras_dqn.trainers.execution import Execution, unpack_batch
from keras_dqn.trainers.step_hooks import train_step_replaced

_NOBODY_FED_BACK = (
    "Batches with a `key` are of a prioritized replay buffer, which `fit` does not know when its "
    "dataset was transformed: add `keras_dqn.PriorityFeedback(replay)` to the callbacks, or the "
    "priorities would never change."
)


class ReplayTrainer(keras.Model):
    """Runs `steps_per_execution` whole training steps in one compiled program per call.

    The results are those of one step at a time on the same batches. Batches from a `ReplayDataset`
    are drawn for all steps of an execution at once; those of any other source are stacked as they
    come, and a smaller last one is an execution of its own. `train_step` and `test_step` are
    overridden as in any Keras model.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.update_count = self.add_weight(
            name="update_count", dtype="int64", initializer="zeros", trainable=False
        )
        self._jit_compile_argument: bool | str = "auto"
        self._alongside: Callable[[], Any] | None = None
        self._update_priorities: Callable[[Any, Any], None] | None = None
        self._fits = False
        self._td_error_of_step: Any = None  # what `train_step` leaves for the feedback
        self.train_function: Any = None
        self.test_function: Any = None

    # Compiling

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *,
        jit_compile: bool | str = "auto",
        run_eagerly: bool = False,
        **kwargs: Any,
    ) -> None:
        """Configures the model for training, as `keras.Model.compile` does.

        Args:
            optimizer: As in Keras.
            loss: As in Keras.
            jit_compile: Bool or `"auto"`: XLA unless the model holds convolutions on a machine
                without accelerator, where XLA's are several times slower, or runs eagerly or
                under a distribution strategy. Defaults to `"auto"`.
            run_eagerly: As in Keras.
            **kwargs: Further arguments of `keras.Model.compile`.
        """
        self._jit_compile_argument = jit_compile
        if jit_compile == "auto":
            jit_compile = not run_eagerly and self._xla_pays()
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

    def _xla_pays(self) -> bool:
        if self._is_distributed() or not all(layer.supports_jit for layer in layers_of(self)):
            return False
        has_accelerator = any(d.device_type != "CPU" for d in tf.config.list_physical_devices())
        return has_accelerator or not has_convolutions(self)

    def _is_distributed(self) -> bool:
        return self.distribute_strategy.num_replicas_in_sync > 1

    # Executions

    def make_train_function(self, force: bool = False) -> Any:
        """Makes `train_function`, which runs one execution of `train_step`s, unless it is there."""
        if self.train_function is None or force:
            self._refuse_many_steps_on_many_replicas()
            step = self._counted(self.train_step)
            if self._is_distributed():
                with train_step_replaced(self, lambda data: step(data)[0]):
                    return super().make_train_function(force)
            self.train_function = Execution(self, step, lambda: self._alongside, self._feed_back)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes `test_function`, which runs one execution of `test_step`s, unless it is there."""
        if self.test_function is None or force:
            self._refuse_many_steps_on_many_replicas()
            if self._is_distributed():
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
        self._refuse_replicas("Nothing can run alongside an execution")
        self._alongside = function

    def _refuse_replicas(self, what: str) -> None:
        if self._is_distributed():
            raise ValueError(
                f"{what} under a distribution strategy of several replicas, in Keras' own loop. "
                f"Received: strategy={self.distribute_strategy}"
            )

    def feed_back_to(self, update_priorities: Callable[[Any, Any], None]) -> None:
        """Hands the TD errors of batches with a `key` to a function, until `fit` ends.

        On a prioritized `ReplayDataset`, `fit` does so by itself; for other sources a callback asks
        for it in `on_train_begin`.

        Args:
            update_priorities: Function of the keys `[K, B]` and the TD errors `[K, B]`, in NumPy,
                called after each execution.
        """
        self._update_priorities = update_priorities

    def _feed_back(self, keys: Any, td_error: Any) -> None:
        if self._update_priorities is not None:
            self._update_priorities(keys, td_error)
        elif self._fits:
            raise ValueError(_NOBODY_FED_BACK)

    def _check_feedback(self, dataset: Any) -> None:
        if self._update_priorities is None and isinstance(dataset, tf.data.Dataset):
            spec = dataset.element_spec
            if isinstance(spec, tuple) and len(spec) > 1 and "key" in unpack_batch(spec).transition:
                raise ValueError(_NOBODY_FED_BACK)

    def _counted(self, train_step: Any) -> Any:
        def counted(data: Any) -> tuple[dict, Any]:
            self.update_count.assign_add(1)
            self._td_error_of_step = None
            logs = train_step(data)
            td_error, self._td_error_of_step = self._td_error_of_step, None
            return logs, td_error if "key" in unpack_batch(data).transition else None

        return counted

    def _refuse_many_steps_on_many_replicas(self) -> None:
        num_replicas = self.distribute_strategy.num_replicas_in_sync
        if num_replicas > 1 and self.steps_per_execution > 1:
            raise ValueError(
                "`steps_per_execution` must be 1 under a distribution strategy of several "
                f"replicas. Received: steps_per_execution={self.steps_per_execution}, "
                f"replicas={num_replicas}"
            )

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

        Args:
            x: A `ReplayDataset`, any other `tf.data.Dataset`, arrays or what else Keras takes.
            y: As in Keras.
            batch_size: As in Keras.
            epochs: As in Keras.
            verbose: As in Keras.
            callbacks: As in Keras.
            **kwargs: Further arguments of `keras.Model.fit`. `steps_per_epoch` has to be a multiple
                of `steps_per_execution`; an endless dataset, and a replay dataset is one, needs it.

        Raises:
            ValueError: If `steps_per_epoch` is missing on an endless dataset, or is not a multiple
                of `steps_per_execution`.
        """
        steps_per_epoch = kwargs.get("steps_per_epoch")
        self._check_steps("steps_per_epoch", x, steps_per_epoch)
        if steps_per_epoch is not None and steps_per_epoch % self.steps_per_execution:
            raise ValueError(
                "`steps_per_epoch` must be a multiple of `steps_per_execution`. Received: "
                f"steps_per_epoch={steps_per_epoch}, "
                f"steps_per_execution={self.steps_per_execution}"
            )
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras warns of its own default
        validation_data, steps = kwargs.get("validation_data"), kwargs.get("validation_steps")
        if isinstance(validation_data, tf.data.Dataset):
            self._check_steps("validation_steps", validation_data, steps)
            kwargs["validation_data"] = self._drawn_in_executions(validation_data, steps)
        if isinstance(x, ReplayDataset) and x.prioritized:
            self._refuse_replicas("Priorities cannot be fed back")
            self.feed_back_to(x.replay.update_priorities)
        x = self._drawn_in_executions(x, steps_per_epoch)
        self._fits = True
        try:
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)
        finally:
            self._alongside = self._update_priorities = None
            self._fits = False

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
            x: A `ReplayDataset`, any other `tf.data.Dataset`, arrays or what else Keras takes.
            y: As in Keras.
            batch_size: As in Keras.
            verbose: As in Keras.
            sample_weight: As in Keras.
            steps: Int, the number of batches; an endless dataset needs it. Defaults to `None`.
            **kwargs: Further arguments of `keras.Model.evaluate`.

        Raises:
            ValueError: If `steps` is missing on an endless dataset.
        """
        self._check_steps("steps", x, steps)
        x = self._drawn_in_executions(x, steps)
        return super().evaluate(x, y, batch_size, verbose, sample_weight, steps, **kwargs)

    def _check_steps(self, argument: str, dataset: Any, steps: int | None) -> None:
        endless = (
            isinstance(dataset, tf.data.Dataset)
            and dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        )
        if endless and steps is None:
            raise ValueError(
                f"`{argument}` must be given: the dataset is endless and would never finish. "
                f"Received: {argument}=None"
            )

    def _drawn_in_executions(self, dataset: Any, steps: int | None) -> Any:
        """Returns the dataset that delivers whole executions, or exactly `steps` batches."""
        if not isinstance(dataset, tf.data.Dataset) or self._is_distributed():
            return dataset
        if steps is not None and steps % self.steps_per_execution:
            return dataset.take(steps)
        one_device = isinstance(self.distribute_strategy, tf.distribute.OneDeviceStrategy)
        if one_device:  # Keras takes the first element for a batch, to build the loss
            return dataset
        if isinstance(dataset, ReplayDataset) and dataset.num_batches is None:
            return dataset.stacked(self.steps_per_execution)
        return dataset
