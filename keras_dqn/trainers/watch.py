"""Callbacks that `fit` adds itself: a watch over training, and a narrow progress bar."""

import math
import warnings
from typing import Any

import keras

from keras_dqn.trainers.step_hooks import hooks_of

# The bar shows these only at the end of an epoch, because a terminal is about 110 columns wide.
_LATER = {
    "abs_td_error",
    "q_value",
    "episode_length",
    "env_steps",
    "epsilon",
    "temperature",
    "policy_lag",
    "worker_restarts",
}


class Watch(keras.callbacks.Callback):
    """Warns once if training diverges, and calls the model's `after_epoch`."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts watching."""
        self._warned = False

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Sets the number of updates of the execution, unless a collector sets it."""
        hooks = hooks_of(self.model)
        if not hooks.collectors:
            hooks.limit_updates(updates_from(batch, self))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Warns once if the loss or a TD error is not finite and `fit` goes on."""
        wrong = hooks_of(self.model).diverged
        loss = (logs or {}).get("loss", 0.0)
        if self._warned or self.model.stop_training or not (wrong or not math.isfinite(loss)):
            return
        self._warned = True
        update = int(self.model.update_count.numpy())
        warnings.warn(
            f"Training has diverged: after update {update} the loss is {float(loss)}{wrong}. Try "
            "a smaller learning rate, `clipnorm` in the optimizer, a smaller tau, or smaller "
            "rewards. `keras.callbacks.TerminateOnNaN()` ends such a run.",
            stacklevel=2,
        )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Calls the model's `after_epoch`."""
        self.model.after_epoch()


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar; it shows fewer logs until the epoch ends."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Draws the bar, at most to the epoch's end: the last execution may be shorter than K."""
        shown = {name: value for name, value in (logs or {}).items() if name not in _LATER}
        last = batch if self.target is None else min(batch, self.target - 1)
        super().on_train_batch_end(last, shown)


def updates_from(batch: int, callback: keras.callbacks.Callback) -> int:
    """Returns the number of updates of the execution that begins at this batch.

    Args:
        batch: Int, batches of the epoch before it: the argument of `on_train_batch_begin`.
        callback: A callback of `fit`; its `params` hold the length of the epoch.
    """
    num_updates = callback.model.steps_per_execution
    steps_per_epoch = (callback.params or {}).get("steps")
    return num_updates if steps_per_epoch is None else min(num_updates, steps_per_epoch - batch)


def append_to(callbacks: keras.callbacks.CallbackList, callback: keras.callbacks.Callback) -> None:
    """Appends a callback to a list of Keras, which has given the others their model before."""
    callback.set_model(callbacks.model)
    callback.set_params(callbacks.params)
    callbacks.callbacks.append(callback)


def with_watch(callbacks: Any, verbose: Any) -> Any:
    """Adds a `Watch` to the callbacks of `fit`, and a `ProgressBar` unless they have a bar."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if not any(isinstance(callback, Watch) for callback in callbacks.callbacks):
            append_to(callbacks, Watch())
        return callbacks
    callbacks = keras.tree.flatten(callbacks) if callbacks else []
    has_bar = any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in callbacks)
    return [*callbacks, Watch(), *([] if has_bar or verbose == 0 else [ProgressBar()])]
