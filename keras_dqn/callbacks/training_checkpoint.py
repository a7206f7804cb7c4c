"""`TrainingCheckpoint`: saves a whole run, so that a killed `fit` goes on where it was."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_dqn.arguments import check_bool, check_integer, check_type
from keras_dqn.callbacks.collecting import CollectingCallback
from keras_dqn.callbacks.priority_feedback import PriorityFeedback
from keras_dqn.callbacks.run_state import RunState
from keras_dqn.models.target_network_model import TargetNetworkModel
from keras_dqn.replay.replay_buffer import ReplayBuffer
from keras_dqn.replay.replay_dataset import ReplayDataset
from keras_dqn.saving.checkpoint_directory import CheckpointDirectory
from keras_dqn.trainers.replicas import draws_in_advance
from keras_dqn.trainers.resuming import FitCall, Position
from keras_dqn.trainers.step_hooks import hooks_of
from keras_dqn.trainers.watch import updates_from


class TrainingCheckpoint(keras.callbacks.Callback):
    """Saves the whole run at the end of each epoch; the next `fit` continues it exactly.

    ```
    agent.fit(dataset, epochs=50, steps_per_epoch=1_000,
              callbacks=[collect, update, evaluate, TrainingCheckpoint("run")])
    ```

    Run the same program again after a crash, a kill or Ctrl-C. If the directory holds a checkpoint,
    `fit` restores it and begins at the epoch after it. The run ends with the same weights, bit for
    bit, as one that was never interrupted. If all epochs were trained before, `fit` trains nothing
    and returns the `History` of the run.

    A checkpoint holds the online and the target network, the optimizer, the seeds of the layers,
    the replay buffers with their priorities, the collectors, the past epochs of `History`, and the
    state of all callbacks that have the methods `get_state` and `set_state`. Of Keras'
    `EarlyStopping`, `ReduceLROnPlateau` and `ModelCheckpoint` it holds the public attributes. The
    callback works at any place in the list.

    A running episode continues too: the environment is reset with the seed of the episode, and the
    actions since then are repeated. So the environment must be a function of `reset(seed)` and the
    actions. If it is not, a warning says so, and new episodes begin.

    A new checkpoint is complete before an old one is removed. If the newest one is damaged, the one
    before is used, with a warning. If a checkpoint cannot be written (the disk is full), a warning
    says so, and training continues. The rows of a replay buffer are written once: later checkpoints
    write only new rows. Checkpoints hold numbers and JSON, no code.

    Args:
        directory: String or path, for this run alone. It is created if it does not exist.
        max_to_keep: Int, checkpoints to keep, at least 1. Defaults to `2`.
        save_freq: `"epoch"`, or an int: updates after which a checkpoint is also written in the
            middle of an epoch, at the end of an execution. Defaults to `"epoch"`.
        include_replay: Bool, whether the replay buffers are saved. If False, a continued run is not
            exact: it uses the buffer as it is, and the warm-up fills an empty one again. Defaults
            to `True`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range. When `fit` begins: if the model is not a
            `DQN`, a buffer cannot be saved, another callback cannot be continued, or the checkpoint
            is of another agent, another buffer or another version.
        RuntimeError: When `fit` begins, if another `fit` uses the directory.

    Example:
    >>> TrainingCheckpoint("run", save_freq=10_000).max_to_keep
    2
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        max_to_keep: int = 2,
        save_freq: str | int = "epoch",
        include_replay: bool = True,
    ) -> None:
        super().__init__()
        check_type("directory", directory, (str, os.PathLike), "a string or path")
        check_integer("max_to_keep", max_to_keep)
        if not isinstance(save_freq, str):
            check_integer("save_freq", save_freq)
        elif save_freq != "epoch":
            raise ValueError(
                f"`save_freq` must be 'epoch' or a number of updates. Received: {save_freq=}"
            )
        self.directory = directory
        self.max_to_keep = max_to_keep
        self.save_freq = save_freq
        self.include_replay = check_bool("include_replay", include_replay)
        self._files = CheckpointDirectory(directory, max_to_keep)
        self._run: Any = None  # the RunState of a running `fit`
        self._resumes = False
        self._epoch = 0
        self._batch = 0
        self._num_unsaved = 0

    @contextmanager
    def resume(self, call: FitCall) -> Iterator[Position | None]:
        """Restores the newest checkpoint; `fit` calls this method before it begins.

        Args:
            call: The `FitCall`.

        Yields:
            The `Position` at which `fit` begins; None for a new run.
        """
        replays = _replays_of(call)
        self._check(call, replays)
        _build(call)
        with self._files.locked():
            run = RunState(call, replays if self.include_replay else [], self._files.path)
            if not self._files.is_empty:
                _check_csv_loggers(call)
            self._run, self._num_unsaved = run, 0
            self._resumes = self._files.restore_newest(run.restore)
            try:
                yield self._position(call, replays) if self._resumes else None
            finally:
                self._run = None

    def _check(self, call: FitCall, replays: list[Any]) -> None:
        if not isinstance(call.model, TargetNetworkModel):
            raise ValueError(f"`TrainingCheckpoint` needs a DQN. Received: model={call.model}")
        exact = isinstance(call.data, ReplayDataset) and not draws_in_advance(call.model)
        if self.save_freq != "epoch" and not exact:
            raise ValueError(
                "`save_freq` must be 'epoch' unless `fit` trains on `replay.dataset(...)` "
                "without a distribution strategy: other data cannot be continued in the middle of "
                "an epoch. Received: "
                f"save_freq={self.save_freq}, x={call.data}"
            )
        for replay in replays if self.include_replay else []:
            if not isinstance(replay, ReplayBuffer):
                raise ValueError(
                    "`TrainingCheckpoint` can only save a ReplayBuffer or a subclass. "
                    "`include_replay=False` saves the run without its buffer. Received: "
                    f"replay={replay}"
                )
        if not exact:
            warnings.warn(
                "A run continues exactly only if `fit` trains on `replay.dataset(...)` itself, "
                "without a distribution strategy: others may have drawn batches in advance, which "
                f"a continued run does not get. Received: x={call.data}, "
                f"strategy={call.model.distribute_strategy}",
                stacklevel=2,
            )
        _check_callbacks(call)

    def _position(self, call: FitCall, replays: list[Any]) -> Position:
        run = self._run
        if run.has_stopped or run.position.epoch >= call.epochs:
            return Position(call.epochs)
        if not self.include_replay and not all(len(replay) for replay in replays):
            warnings.warn(
                "The run continues without its transitions, because of `include_replay=False`. "
                "The warm-up fills the buffer again.",
                stacklevel=2,
            )
        if run.position.num_updates:
            _build_metrics(call, run.num_metric_variables)
        return run.position

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Restores the other callbacks, which have begun before this one."""
        if self._run is None:
            raise ValueError(
                "`TrainingCheckpoint` needs a DQN: Keras' own `fit` cannot continue a run exactly; "
                f"`keras.callbacks.BackupAndRestore` restores its epoch. Received: "
                f"model={self.model}"
            )
        self._run.check_callbacks()
        if not isinstance(self.save_freq, str):
            hooks_of(self.model).draws_ahead = False  # such rows are in no checkpoint
        if self._resumes:
            self._run.restore_callbacks()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Restores an epoch that continues in its middle, after the others have begun it."""
        self._epoch = epoch
        if self._resumes:
            if self._run.position.num_updates:
                self._run.restore_epoch()
            self._run.forget()
        self._resumes = False

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Notes how many updates of the epoch came before."""
        self._batch = batch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves the run if `save_freq` updates were made, unless the epoch ends now."""
        if isinstance(self.save_freq, str):
            return
        num_updates = updates_from(self._batch, self)
        self._num_unsaved += num_updates
        done = self._batch + num_updates
        ends = self.model.stop_training or done == (self.params or {}).get("steps")
        if self._num_unsaved >= self.save_freq and not ends:
            self._save(Position(self._epoch, done))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the run."""
        self._save(Position(epoch + 1))

    def _save(self, position: Position) -> None:
        self._num_unsaved = 0
        run = self._run
        # A collector may wait here for transitions that are under way to the buffer.
        callbacks = run.states_of_callbacks()
        try:
            self._files.write(lambda number: run.take(number, position, callbacks))
        except OSError as error:
            warnings.warn(
                f"`TrainingCheckpoint` could not save the run in epoch {self._epoch + 1}; training "
                f"continues, and the last checkpoint stays. Received: {error}, "
                f"directory={str(self.directory)!r}",
                stacklevel=2,
            )


def _replays_of(call: FitCall) -> list[Any]:
    """Returns the replay buffers of a `fit`, each once, in a fixed order."""
    data = [part for part in (call.data, call.validation_data) if isinstance(part, ReplayDataset)]
    users = [c for c in call.callbacks if isinstance(c, (CollectingCallback, PriorityFeedback))]
    return list({id(part.replay): part.replay for part in (*data, *users)}.values())


def _check_callbacks(call: FitCall) -> None:
    """Raises a `ValueError` if another callback cannot be continued; warns about wrappers."""
    for callback in call.callbacks:
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "`TrainingCheckpoint` cannot be used together with BackupAndRestore: both restore "
                "the run."
            )
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_freq != "epoch":
            raise ValueError(
                "`save_freq` of ModelCheckpoint must be 'epoch' with `TrainingCheckpoint`: Keras "
                "does not let its count of batches be restored. Received: "
                f"save_freq={callback.save_freq}"
            )
        if isinstance(callback, keras.callbacks.SwapEMAWeights) and callback.swap_on_epoch:
            raise ValueError(
                "`swap_on_epoch` of SwapEMAWeights must be False with `TrainingCheckpoint`: Keras "
                "does not let it be restored which weights are in the model. Received: "
                f"swap_on_epoch={callback.swap_on_epoch}"
            )
        if isinstance(callback, CollectingCallback):
            reason = callback.why_not_repeatable
            if reason:
                warnings.warn(
                    f"{reason}: after a restart the run is not repeated exactly.", stacklevel=2
                )


def _check_csv_loggers(call: FitCall) -> None:
    for callback in call.callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and not callback.append:
            raise ValueError(
                "`append` of CSVLogger must be True in a run that continues: it would overwrite "
                f"the epochs before. Received: append={callback.append}, "
                f"filename={callback.filename!r}"
            )


def _build(call: FitCall) -> None:
    """Makes all variables of the agent and the optimizer, so that they can be restored."""
    model = call.model
    if not model.built and isinstance(call.data, ReplayDataset):
        model.build_for(call.data.replay.empty_batch()[0])
    if not model.built:
        raise ValueError(
            "`TrainingCheckpoint` needs a network that is built, if `fit` does not train on "
            f"`replay.dataset(...)`: begin it with `keras.Input`. Received: network={model.network}"
        )
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _build_metrics(call: FitCall, num_variables: int) -> None:
    """Makes the variables of `compile(metrics=...)`, which Keras makes at their first update."""
    empty = call.data.replay.empty_batch()
    one_row = keras.tree.map_structure(lambda a: np.zeros((1, *a.shape[1:]), a.dtype), empty)
    call.model.test_step(keras.tree.map_structure(keras.ops.convert_to_tensor, one_row))
    if len(call.model.metrics_variables) != num_variables:
        raise ValueError(
            "`metrics` of `compile` must be those of the checkpoint to continue in the middle of "
            f"an epoch. Received: {len(call.model.metrics_variables)} variables of metrics, not "
            f"{num_variables}"
        )
