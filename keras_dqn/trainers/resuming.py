"""Lets a callback say where `fit` begins: at which epoch, and after how many of its updates."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import keras

from keras_dqn.trainers.watch import append_to


class FitCall(NamedTuple):
    """What a callback can know about a call of `fit` before it begins.

    Attributes:
        model: The `ReplayTrainer`.
        data: The `x` of `fit`.
        validation_data: The `validation_data` of `fit`.
        epochs: Int.
        steps_per_epoch: Int or None, updates.
        callbacks: List of all callbacks, the resuming one last.
    """

    model: Any
    data: Any
    validation_data: Any
    epochs: int
    steps_per_epoch: int | None
    callbacks: list[keras.callbacks.Callback]


class Position(NamedTuple):
    """Where `fit` begins.

    Attributes:
        epoch: Int, the first epoch, from 0.
        num_updates: Int, updates of this epoch that were made before.
    """

    epoch: int
    num_updates: int = 0


@runtime_checkable
class ResumesFit(Protocol):
    """A callback that restores a run before `fit` begins. It gets the last place in the list."""

    def resume(self, call: FitCall) -> AbstractContextManager[Position | None]:
        """Restores the run and gives its position; None for a new run. Left when `fit` ends."""


@contextmanager
def resumed(
    model: Any,
    data: tuple[Any, Any],
    epochs: int,
    verbose: Any,
    callbacks: Any,
    kwargs: dict[str, Any],
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Gives the callbacks and the further arguments of a `fit` that begins where a run stopped.

    Args:
        model: The `ReplayTrainer`.
        data: The `x` and the `validation_data` of `fit`, as the user gave them.
        epochs: Int.
        verbose: As in Keras.
        callbacks: List of callbacks, or a `keras.callbacks.CallbackList`.
        kwargs: The further arguments of `fit`.

    Raises:
        ValueError: If two callbacks want to resume.
    """
    is_list = isinstance(callbacks, keras.callbacks.CallbackList)
    members = callbacks.callbacks if is_list else callbacks
    resuming = [callback for callback in members if isinstance(callback, ResumesFit)]
    if not resuming:
        yield callbacks, kwargs
        return
    if len(resuming) > 1:
        raise ValueError(f"One `fit` can have one `TrainingCheckpoint`. Received: {len(resuming)}")
    # Last, so that it saves what the others have done, and restores them after they have begun.
    members[:] = [callback for callback in members if callback is not resuming[0]]
    if not any(isinstance(callback, keras.callbacks.History) for callback in members):
        history = keras.callbacks.History()  # Keras would put its own behind the checkpoint
        if is_list:
            append_to(callbacks, history)
        else:
            members.append(history)
    members.append(resuming[0])
    steps_per_epoch = kwargs.get("steps_per_epoch")
    call = FitCall(model, *data, epochs, steps_per_epoch, list(members))
    with resuming[0].resume(call) as position:
        if position is None:
            yield callbacks, kwargs
            return
        kwargs = {**kwargs, "initial_epoch": position.epoch}
        if not position.num_updates:
            yield callbacks, kwargs
            return
        params = {"epochs": epochs, "steps": steps_per_epoch, "verbose": verbose}
        skipping = SkippingCallbacks(position.num_updates, members, model=model, **params)
        try:
            yield skipping, kwargs
        finally:
            skipping.end_skipped()


class SkippingCallbacks(keras.callbacks.CallbackList):
    """The callbacks of a `fit` that goes on in the middle of an epoch.

    Keras begins each epoch at batch 0. In the first epoch, the executions that were made before the
    restart are skipped: nothing runs, and no callback hears of them.

    Args:
        num_updates: Int, updates to skip; a multiple of `steps_per_execution`.
        callbacks: List of callbacks.
        **kwargs: Arguments of `keras.callbacks.CallbackList`.
    """

    def __init__(self, num_updates: int, callbacks: list, **kwargs: Any) -> None:
        super().__init__(callbacks, **kwargs)
        self._num_updates = num_updates
        self._train_function: Any = None

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Skips an execution, or passes its begin on."""
        if batch >= self._num_updates:
            super().on_train_batch_begin(batch, logs)
            return
        self._train_function = self.model.train_function
        self.model.train_function = lambda iterator: {}

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Ends the skipping of an execution, or passes its end on."""
        if self._train_function is None:
            super().on_train_batch_end(batch, logs)
        self.end_skipped()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Passes the end of the epoch on; later epochs are not shortened."""
        self._num_updates = 0
        super().on_epoch_end(epoch, logs)

    def end_skipped(self) -> None:
        """Puts the model's train function back."""
        if self._train_function is not None:
            self.model.train_function = self._train_function
            self._train_function = None
