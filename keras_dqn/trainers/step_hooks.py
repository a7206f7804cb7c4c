"""Requests of callbacks to `fit`: operations after each step, a parallel function, feedback."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import keras
import numpy as np
import tensorflow as tf


class Hook(NamedTuple):
    """Operations that run after each training step, inside the compiled program.

    Attributes:
        run: Function of no arguments that adds the operations to the program.
        key: Hashable; hooks with equal keys add the same operations on the same variables.
        target: The model or layer that the hook changes. No second hook may change it.
    """

    run: Callable[[], None]
    key: Hashable
    target: Any


class StepHooks:
    """Holds the requests of callbacks to the `fit` of one model; `hooks_of(model)` returns it.

    While hooks are installed, `model.train_function` is `self._run`. It calls the model's own
    `make_train_function` with a `train_step` that runs the hooks last, and caches the result. The
    next `fit` with equal hooks and the same `compile` call uses it again. When the last hook is
    removed, `train_function` is the same object as before. `train_step` is replaced only while
    the function is made.

    Attributes:
        alongside: Function of no arguments that a second thread runs during each execution, or
            None.
        num_ahead: Int, batches that this thread then draws for the next execution; 0 for none.
        draws_ahead: Bool, whether it may do so in this `fit`.
        feedback: Function of keys `[K, B]` and TD errors `[K, B]`, in NumPy, or None.
        in_fit: Bool, whether a `ReplayTrainer.fit` is running.
        dataset: The `ReplayDataset` that `fit` trains on, or None.
        collectors: List of the collectors among the callbacks.
        diverged: String, the part of the warning about TD errors that are not finite; empty if
            all are finite.
    """

    def __init__(self, model: keras.Model) -> None:
        self.alongside: Callable[[], Any] | None = None
        self.num_ahead = 0
        self.draws_ahead = True
        self.feedback: Callable[[Any, Any], None] | None = None
        self._drawn: tuple[int, Any] | None = None
        self._num_updates: int | None = None
        self.in_fit = False
        self.dataset: Any = None
        self.collectors: list[Any] = []
        self.diverged = ""
        self._model = model
        self._hooks: list[Hook] = []
        self._is_due = False
        self._made_for: Any = None
        self._made: Any = None
        self._before: Any = None

    @contextmanager
    def one_fit(self) -> Iterator[None]:
        """Removes all requests when `fit` ends, also if it was interrupted."""
        self.in_fit = True
        self._drawn = None
        try:
            yield
        finally:
            self.in_fit = False
            self.clear()

    def begin(self) -> None:
        """Removes hooks of an interrupted `fit`, and keeps `train_function` to restore it later."""
        self._hooks = []
        self._uninstall()
        self._before = self._model.train_function

    def add(self, hook: Hook) -> None:
        """Adds a hook; `begin` must have been called before.

        Raises:
            ValueError: If another hook changes the same target.
        """
        if any(other.target is hook.target for other in self._hooks):
            raise ValueError(
                "Two `SoftTargetUpdate`s of one `fit` must have different targets. Received: "
                f"target={hook.target} twice"
            )
        self._hooks.append(hook)
        self._model.train_function = self._run

    def limit_updates(self, num_updates: int) -> None:
        """Limits the next execution to so many updates; of several limits the smallest counts."""
        before = self._num_updates
        self._num_updates = num_updates if before is None else min(before, num_updates)

    def take_limit(self) -> int | None:
        """Returns the limit of the next execution, or None, and forgets it."""
        num_updates, self._num_updates = self._num_updates, None
        return num_updates

    def keep(self, num_batches: int, stack: Any) -> None:
        """Keeps a stack of batches that was drawn for the next execution."""
        self._drawn = num_batches, stack

    def take_drawn(self, num_batches: int) -> Any:
        """Returns the stack that was drawn for this execution and forgets it; None if none was."""
        drawn, self._drawn = self._drawn, None
        return None if drawn is None or drawn[0] != num_batches else drawn[1]

    def remove(self, hook: Hook) -> None:
        """Removes exactly this hook object, if it is installed."""
        self._hooks = [other for other in self._hooks if other is not hook]
        if not self._hooks:
            self._uninstall()

    def clear(self) -> None:
        """Removes all requests and hooks."""
        self.alongside = self.feedback = self.dataset = self._num_updates = self._drawn = None
        self.num_ahead, self.draws_ahead = 0, True
        self.collectors = []
        self.diverged = ""
        self._hooks = []
        self._uninstall()

    def feed_back(self, keys: Any, td_error: Any) -> None:
        """Passes TD errors to `feedback`, unless some are not finite: then priorities stay."""
        if self.feedback is not None:
            wrong = np.count_nonzero(~np.isfinite(td_error))
            if wrong:
                self.diverged = f", and {wrong} of {td_error.size} TD errors are not finite"
            else:
                self.feedback(keys, td_error)

    def expect_run(self) -> None:
        """Notes that a batch of `fit` begins, so the train function must run the hooks."""
        self._is_due = True

    def check_ran(self) -> None:
        """Raises a `RuntimeError` if a batch has ended and its train function ran no hooks."""
        if self._is_due and self._hooks:
            raise RuntimeError(
                "The target network was not updated: `fit` has called another train function than "
                f"`model.train_function`. Received: model={self._model}, Keras {keras.version()}"
            )

    def _uninstall(self) -> None:
        if self._model.train_function == self._run:
            self._model.train_function = self._before
        self._before = None

    def _run(self, iterator: Iterator) -> dict:
        if not self._is_due:  # an interrupted `fit` left the hooks behind
            self.clear()
            self._model.make_train_function()
            return self._model.train_function(iterator)
        self._is_due = False
        wanted = (_compile_call(self._model), [hook.key for hook in self._hooks])
        if self._made_for is None or not _same(self._made_for, wanted):
            self._made, self._made_for = self._make(), wanted
        try:
            return self._made(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):
            raise  # the end of the data
        except BaseException:  # `fit` will not call `on_train_end`, so the hooks must go now
            self.clear()
            raise

    def _make(self) -> Any:
        model, hooks = self._model, tuple(self._hooks)
        train_step = model.train_step

        def train_step_then_hooks(data: Any) -> dict:
            logs = train_step(data)
            for hook in hooks:
                hook.run()
            return logs

        with train_step_replaced(model, train_step_then_hooks):
            try:
                model.make_train_function(force=True)
                return model.train_function
            finally:
                model.train_function = self._run


# Only the models and callbacks that use these objects keep them alive, and with them the compiled
# function that the next `fit` uses again.
_HOOKS: WeakValueDictionary[int, StepHooks] = WeakValueDictionary()


def hooks_of(model: keras.Model) -> StepHooks:
    """Returns the hooks of a model: the same object as long as other objects refer to it."""
    hooks = _HOOKS.get(id(model))
    if hooks is None:
        hooks = _HOOKS[id(model)] = StepHooks(model)
    return hooks


@contextmanager
def train_step_replaced(model: keras.Model, train_step: Callable[[Any], dict]) -> Iterator[None]:
    """Replaces the `train_step` of a model inside this context."""
    own_train_step = vars(model).get("train_step")
    model.train_step = train_step
    try:
        yield
    finally:
        del model.train_step
        if own_train_step is not None:
            model.train_step = own_train_step


def _compile_call(model: keras.Model) -> tuple:
    """Returns the objects that `compile` replaces, to detect a new `compile` call."""
    trackers = [metric for metric in model.metrics if metric.name == "loss"]
    options = (model.run_eagerly, model.jit_compile, model.steps_per_execution)
    return (model.optimizer, model.loss, *trackers), options


def _same(made_for: Any, wanted: Any) -> bool:
    ((objects, options), keys), ((other_objects, other_options), other_keys) = made_for, wanted
    identical = [id(a) for a in objects] == [id(b) for b in other_objects]
    return identical and (options, keys) == (other_options, other_keys)
