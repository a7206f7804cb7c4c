"""Pieces of graph that run after each training step of a Keras model, inside its compiled step."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf


class Hook(NamedTuple):
    """What runs after each step.

    Attributes:
        run: Function of no arguments that emits the operations.
        key: Two pieces of equal keys emit the same operations on the same variables.
    """

    run: Callable[[], None]
    key: Hashable


class StepHooks:
    """The pieces of one model, and the compiled function that contains them.

    While there are pieces, `model.train_function` is this object's. It makes, through the model's
    own `make_train_function`, a function of a `train_step` that ends with the pieces, and keeps it:
    the next `fit` with equal pieces and the same `compile` call finds it. `train_step` itself is
    never replaced for longer than the making takes. When the last piece goes, `train_function` is
    the object it was before.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._pieces: list[Hook] = []
        self._made_for: Any = None
        self._made: Any = None
        self._before: Any = None

    @classmethod
    def of(cls, model: keras.Model) -> "StepHooks":
        """Returns the pieces of a model, which keeps them."""
        if not hasattr(model, "keras_dqn_graph_pieces"):
            model.keras_dqn_graph_pieces = cls(model)
        return model.keras_dqn_graph_pieces

    def add(self, piece: Hook, train_function_before: Any) -> None:
        """Adds a piece; `train_function_before` is what comes back after the last one has gone."""
        if not self._pieces:
            self._before = train_function_before
            self._model.train_function = self._run
        self._pieces.append(piece)

    def remove(self, piece: Hook) -> None:
        """Removes this very piece, if it is there."""
        self._pieces = [other for other in self._pieces if other is not piece] or self.clear()

    def clear(self) -> list[Hook]:
        """Removes all pieces, those left over from an interrupted `fit` among them."""
        if self._pieces:
            self._model.train_function, self._before = self._before, None
            self._pieces = []
        return self._pieces

    def _run(self, iterator: Iterator) -> dict:
        wanted = (_compile_call(self._model), [piece.key for piece in self._pieces])
        if self._made_for is None or not _same(self._made_for, wanted):
            self._made, self._made_for = self._make(), wanted
        try:
            return self._made(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):
            raise  # the end of the data
        except BaseException:  # `fit` will not call `on_train_end`: leave nothing behind here
            self._made_for = None
            self.clear()
            raise

    def _make(self) -> Any:
        model, pieces = self._model, tuple(self._pieces)
        train_step = model.train_step

        def train_step_then_pieces(data: Any) -> dict:
            logs = train_step(data)
            for piece in pieces:
                piece.run()
            return logs

        with train_step_replaced(model, train_step_then_pieces):
            try:
                model.make_train_function(force=True)
                return model.train_function
            finally:
                model.train_function = self._run


@contextmanager
def train_step_replaced(model: keras.Model, train_step: Callable[[Any], dict]) -> Iterator[None]:
    """Puts another `train_step` on a model, for as long as a function of it is made."""
    own_train_step = vars(model).get("train_step")
    model.train_step = train_step
    try:
        yield
    finally:
        del model.train_step
        if own_train_step is not None:
            model.train_step = own_train_step


def _compile_call(model: keras.Model) -> tuple:
    """Returns what a call of `compile` replaces, the loss tracker above all, to tell it by."""
    trackers = [metric for metric in model.metrics if metric.name == "loss"]
    options = (model.run_eagerly, model.jit_compile, model.steps_per_execution)
    return (model.optimizer, model.loss, *trackers), options


def _same(made_for: Any, wanted: Any) -> bool:
    ((objects, options), keys), ((other_objects, other_options), other_keys) = made_for, wanted
    identical = [id(a) for a in objects] == [id(b) for b in other_objects]
    return identical and (options, keys) == (other_options, other_keys)
