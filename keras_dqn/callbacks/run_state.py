"""What a run is: the states of agent, buffers, callbacks, metrics and history."""

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_dqn.callbacks.collecting import CollectingCallback
from keras_dqn.hdf5 import DamagedFileError
from keras_dqn.saving.replay_checkpoint import ReplayCheckpoint
from keras_dqn.saving.state_file import check_state
from keras_dqn.stateful import Stateful
from keras_dqn.trainers.resuming import FitCall, Position

# Keras' callbacks reset these when `fit` begins.
_RESET = ("best", "wait", "best_weights", "best_epoch", "stopped_epoch", "cooldown_counter")
_KERAS_CALLBACKS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
)
_PARTS = {"position", "agent", "updates", "metrics", "history", "callbacks", "replays"}


class RunState:
    """Takes the state of a run for a checkpoint, and restores it in the right order.

    1. `restore`, before `fit` begins: agent, buffers and collectors, so that nothing warms up.
    2. `restore_callbacks`, when all callbacks have begun, because many reset themselves then.
    3. `restore_epoch`, when the first epoch has begun, if it begins in its middle: what callbacks
       did when it began is undone, because the checkpoint has it already.

    Args:
        call: The `FitCall`; its agent is built.
        replays: List of the `ReplayBuffer`s to save.
        directory: Path of the checkpoints.
    """

    def __init__(self, call: FitCall, replays: list[Any], directory: Path) -> None:
        self.model = call.model
        self.callbacks = call.callbacks
        self.steps_per_epoch = call.steps_per_epoch
        self._directory = directory
        self._replays = [
            ReplayCheckpoint(replay, directory, index) for index, replay in enumerate(replays)
        ]
        self._saved: dict[str, Any] = {}
        self._num_updates = int(self.model.update_count.numpy())

    # Saving

    def states_of_callbacks(self) -> dict[str, dict[str, Any]]:
        """Returns the states of the callbacks, for `take`."""
        return {name: _state_of(part) for name, part in self._with_state()}

    def take(
        self, number: int, position: Position, callbacks: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        """Returns the state for the checkpoint of a number; writes the new rows of the buffers."""
        replays = [replay.save(number) for replay in self._replays]
        history = self._history
        return {
            "position": {**position._asdict(), **self._sizes()},
            "agent": {"class": type(self.model).__name__, "state": self.model.get_state()},
            "updates": int(self.model.update_count.numpy()),
            "metrics": [variable.numpy() for variable in self.model.metrics_variables],
            "history": {"epoch": history.epoch, "history": history.history},
            "callbacks": callbacks,
            "replays": replays,
            "files": sorted(set().union(*(replay.files for replay in self._replays))),
        }

    def check_callbacks(self) -> None:
        """Raises a `TypeError` if a callback has a state that cannot be saved."""
        for name, callback in self._with_state():
            try:
                check_state(_state_of(callback))
            except TypeError as error:
                raise TypeError(
                    f"`get_state` of the callback {name} cannot be used. {error}"
                ) from error

    # Restoring

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores agent, buffers and collectors; checks first that they fit.

        Raises:
            DamagedFileError: If a file of the checkpoint is damaged.
            ValueError: If the checkpoint is of another agent or buffer.
        """
        try:
            self._check(saved)
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"A checkpoint lacks a part of the run ({error!r}).") from error
        before = self.model.get_state()
        try:
            self.model.set_state(saved["agent"]["state"])
        except ValueError as error:
            raise ValueError(
                f"`directory` holds a checkpoint of another network or optimizer: {error} "
                f"(directory={str(self._directory)!r})"
            ) from error
        self._saved = saved
        try:
            for replay, part in zip(self._replays, saved["replays"], strict=False):
                replay.restore(part)
            self._set_states(collectors=True)
        except BaseException:
            self.model.set_state(before)
            raise
        if self._num_updates > saved["updates"]:
            warnings.warn(
                f"The agent had been trained for {self._num_updates} updates. It goes back to the "
                f"checkpoint in {str(self._directory)!r}, after {saved['updates']} updates.",
                stacklevel=2,
            )

    def _check(self, saved: dict[str, Any]) -> None:
        if missing := _PARTS - set(saved):
            raise DamagedFileError(f"A checkpoint lacks parts of the run: {sorted(missing)}.")
        where, own = f"directory={str(self._directory)!r}", type(self.model).__name__
        if saved["agent"]["class"] != own:
            raise ValueError(
                f"`directory` holds a checkpoint of a {saved['agent']['class']}. Received: "
                f"a {own}, {where}"
            )
        if self._replays and len(saved["replays"]) != len(self._replays):
            raise ValueError(
                f"`directory` holds a checkpoint with {len(saved['replays'])} replay buffers. "
                f"Received: {len(self._replays)} in `fit`, {where}"
            )
        for replay, part in zip(self._replays, saved["replays"], strict=False):
            replay.check(part)
        position = saved["position"]
        for name, value in self._sizes().items():
            if position["num_updates"] and position[name] != value:
                raise ValueError(
                    f"`{name}` must be {position[name]} to continue in the middle of an epoch. "
                    f"Received: {name}={value}, {where}"
                )

    def restore_callbacks(self) -> None:
        """Restores the history and all callbacks but the collectors."""
        saved = self._saved
        self._history.epoch = list(saved["history"]["epoch"])
        self._history.history = {name: list(v) for name, v in saved["history"]["history"].items()}
        self._set_states(collectors=False)
        names = {name for name, _ in self._with_state()} ^ set(saved["callbacks"])
        if names:
            warnings.warn(
                "These callbacks are either only in the checkpoint or only in `fit`, where they "
                f"begin with a new state: {sorted(names)}.",
                stacklevel=2,
            )

    def restore_epoch(self) -> None:
        """Restores the means of the running epoch, and undoes what its second begin has changed."""
        self.model.set_state(self._saved["agent"]["state"])
        self._set_states(collectors=False)
        for variable, value in zip(
            self.model.metrics_variables, self._saved["metrics"], strict=True
        ):
            variable.assign(value)
        for name, callback in self._with_state():
            if isinstance(callback, CollectingCallback) and name in self._saved["callbacks"]:
                statistics = self._saved["callbacks"][name]["statistics"]
                callback.collector.statistics.set_state(statistics)

    def forget(self) -> None:
        """Frees the restored checkpoint, whose arrays are as large as the agent."""
        self._saved = {}

    @property
    def position(self) -> Position:
        """The position of the restored checkpoint."""
        return Position(*(self._saved["position"][name] for name in Position._fields))

    @property
    def has_stopped(self) -> bool:
        """Whether a callback had ended the restored run for good, before its last epoch."""
        for name, callback in self._with_state():
            if isinstance(callback, CollectingCallback) and callback.is_finished:
                return True
            state = self._saved["callbacks"].get(name, {})
            if isinstance(callback, keras.callbacks.EarlyStopping) and state.get("stopped_epoch"):
                return True
        return False

    @property
    def num_metric_variables(self) -> int:
        """The number of variables that the metrics had in the restored checkpoint."""
        return len(self._saved["metrics"])

    @property
    def _history(self) -> keras.callbacks.History:
        return next(c for c in self.callbacks if isinstance(c, keras.callbacks.History))

    def _sizes(self) -> dict[str, int | None]:
        """Returns the arguments that an epoch can only be continued with."""
        return {
            "steps_per_execution": self.model.steps_per_execution,
            "steps_per_epoch": self.steps_per_epoch,
        }

    def _with_state(self) -> Iterator[tuple[str, Any]]:
        """Yields the callbacks that have a state, and their names: class and number."""
        count: Counter[str] = Counter()
        for callback in self.callbacks:
            if isinstance(callback, (Stateful, *_KERAS_CALLBACKS)):
                name = type(callback).__name__
                yield f"{name} {count[name]}", callback
                count[name] += 1

    def _set_states(self, collectors: bool) -> None:
        states = self._saved["callbacks"]
        for name, callback in self._with_state():
            if name in states and isinstance(callback, CollectingCallback) == collectors:
                try:
                    _set_state(callback, states[name])
                except (KeyError, TypeError, IndexError, AttributeError) as error:
                    raise ValueError(
                        f"`callbacks` must be made as in the checkpoint: the state of {name} does "
                        f"not fit ({error!r}). Received: directory={str(self._directory)!r}"
                    ) from error


def _state_of(callback: Any) -> dict[str, Any]:
    if isinstance(callback, Stateful):
        return callback.get_state()
    return {name: vars(callback)[name] for name in _RESET if name in vars(callback)}


def _set_state(callback: Any, state: dict[str, Any]) -> None:
    if isinstance(callback, Stateful):
        callback.set_state(state)
    else:
        for name, value in state.items():
            setattr(callback, name, value)
