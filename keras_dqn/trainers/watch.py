"""What `fit` adds to its callbacks: a watch over training, and a progress bar that fits."""

import math
import warnings
from typing import Any

import keras

from keras_dqn.trainers.step_hooks import hooks_of

# While an epoch runs, the bar leaves them to the end of the epoch: a terminal is 110 columns wide.
_LATER = {
    "abs_td_error",
    "q_value",
    "episode_length",
    "env_steps",
    "epsilon",
    "temperature",
}


class Watch(keras.callbacks.Callback):
    """Warns once when training has diverged, and calls `after_epoch` of the model."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts watching."""
        self._warned = False

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Tells the execution how many updates it has to make, unless a collector has done so."""
        hooks = hooks_of(self.model)
        if not hooks.collectors:
            hooks.num_updates = updates_from(batch, self)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Warns, once, when the loss or a TD error is not finite and nothing ends `fit`."""
        wrong = hooks_of(self.model).diverged
        loss = (logs or {}).get("loss", 0.0)
        if self._warned or self.model.stop_training or not (wrong or not math.isfinite(loss)):
            return
        self._warned = True
        update = int(self.model.update_count.numpy())
        warnings.warn(
            f"Training has diverged: after update {update} the loss is {float(loss)}{wrong}. The "
            "usual remedies: a smaller learning rate, `clipnorm` in the optimizer, a smaller tau, "
            "rewards of a smaller scale. `keras.callbacks.TerminateOnNaN()` ends such a run.",
            stacklevel=2,
        )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Lets the model look at the epoch."""
        self.model.after_epoch()


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar with the loss and the return alone, until the epoch ends."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Draws the bar, up to the end of the epoch, which a last execution may stop short of K."""
        shown = {name: value for name, value in (logs or {}).items() if name not in _LATER}
        last = batch if self.target is None else min(batch, self.target - 1)
        super().on_train_batch_end(last, shown)


def updates_from(batch: int, callback: keras.callbacks.Callback) -> int:
    """Returns the number of updates of the execution that begins with a batch of the epoch.

    Args:
        batch: Int, the argument of `on_train_batch_begin`.
        callback: One of the callbacks of `fit`, whose `params` know the length of the epoch.
    """
    num_updates = callback.model.steps_per_execution
    steps_per_epoch = (callback.params or {}).get("steps")
    return num_updates if steps_per_epoch is None else min(num_updates, steps_per_epoch - batch)


def with_watch(callbacks: Any, verbose: Any) -> Any:
    """Returns the callbacks of `fit` with a `Watch`, and a `ProgressBar` unless there is one."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if not any(isinstance(callback, Watch) for callback in callbacks.callbacks):
            callbacks.append(Watch())
        return callbacks
    callbacks = keras.tree.flatten(callbacks) if callbacks else []
    has_bar = any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in callbacks)
    return [*callbacks, Watch(), *([] if has_bar or verbose == 0 else [ProgressBar()])]
