"""What `fit` watches for by itself, as the last one of its callbacks."""

import math
import warnings
from typing import Any

import keras

from keras_dqn.trainers.step_hooks import hooks_of


class Watch(keras.callbacks.Callback):
    """Says once when training has diverged, and calls `after_epoch` of the model."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts watching."""
        self._warned = False

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


def with_watch(callbacks: Any) -> Any:
    """Returns the callbacks of `fit` with a `Watch` at their end."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if not any(isinstance(callback, Watch) for callback in callbacks.callbacks):
            callbacks.append(Watch())
        return callbacks
    return [*(keras.tree.flatten(callbacks) if callbacks else []), Watch()]
