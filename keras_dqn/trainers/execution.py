"""Runs K training or test steps in one compiled program.

A stack holds K batches of equal shape. Its arrays have one more axis in front: `[K, B, ...]`.
"""

from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from operator import itemgetter
from typing import Any

import keras
import tensorflow as tf

from keras_dqn.replay.replay_dataset import ReplayDataset, replay_dataset_of
from keras_dqn.trainers.batch import unpack_batch, without_feedback
from keras_dqn.trainers.stacks import (
    batch_spec,
    padded,
    shapes_of,
    signature_of,
    stacked,
    without_missing,
)
from keras_dqn.trainers.step_hooks import StepHooks

_NOBODY_FED_BACK = (
    "The batches have a `key`, so they come from a prioritized replay buffer, but `fit` cannot "
    "tell which one, because its dataset was transformed. Without feedback the priorities would "
    "never change: add `keras_dqn.PriorityFeedback(replay)` to the callbacks."
)


class Execution:
    """Runs one execution: Keras calls it with an iterator, once per execution.

    It takes `steps_per_execution` batches from the iterator, or fewer at the end of an epoch or of
    the data, and runs `step` on each of them in order. Batches of equal shape run in one program;
    this program can also run fewer of them. A batch of another shape, such as a smaller last one,
    runs in a separate program.

    Args:
        model: A compiled Keras model; its `jit_compile` and `run_eagerly` are respected.
        step: Function of a batch that returns a dict of scalars, and either None or the TD errors
            `[B]` of the batch.
        hooks: `StepHooks` of the model, or None for an execution that does not train. Its
            `alongside` runs in another thread during the execution's first program, and its
            `feedback` gets the TD errors. Defaults to `None`.
    """

    def __init__(
        self,
        model: keras.Model,
        step: Callable[[Any], tuple[dict, Any]],
        hooks: StepHooks | None = None,
    ) -> None:
        self._model = model
        self._step = step
        self._hooks = hooks
        self._counts: dict[int, tf.Tensor] = {}
        self._programs: dict[Hashable, Callable[[Any], tuple[dict, Any]]] = {}

    def __call__(self, iterator: Iterator) -> dict:
        """Runs one execution and returns the dict of its last step.

        Raises:
            StopIteration: If there is no batch left.
            ValueError: If batches have a `key`, but nothing in `fit` takes their TD errors.
        """
        alongside = None
        if self._hooks is not None and self._hooks.alongside is not None:
            alongside = partial(self._beside, replay_dataset_of(iterator), self._hooks)
        logs = None
        for stack in self._stacks(iterator):
            keys = self._keys(stack)
            run = self._ready(stack)
            logs, td_error = run() if alongside is None else self._run_both(run, alongside)
            alongside = None
            if keys is not None and self._hooks is not None:
                self._hooks.feed_back(keys.numpy(), td_error.numpy()[: len(keys)])
        if logs is None:
            raise StopIteration
        return logs

    def _stacks(self, iterator: Iterator) -> Iterator[Any]:
        """Yields the next K batches; consecutive batches of equal shapes form one stack."""
        dataset = replay_dataset_of(iterator)
        num_batches = self._model.steps_per_execution
        if self._hooks is not None:
            limit = self._hooks.take_limit()
            num_batches = num_batches if limit is None else limit
        if dataset is None:
            draw = partial(next, iterator, None)
        else:  # Sampled directly: going through tf.data costs 0.4 ms a call.
            if dataset.num_batches is not None:  # the dataset makes stacks
                dataset = dataset.stacked(num_batches)
            draw = partial(dataset.draw, expects_feedback=self._nobody_feeds_back)
            if dataset.num_batches is not None:
                drawn = None if self._hooks is None else self._hooks.take_drawn(num_batches)
                yield _as_tensors(draw()) if drawn is None else drawn
                return
        equal: list[Any] = []
        for _ in range(num_batches):
            batch = draw()
            if batch is None:
                break
            batch = tf.nest.map_structure(tf.convert_to_tensor, without_missing(batch))
            if equal and shapes_of(batch) != shapes_of(equal[-1]):
                yield stacked(equal)
                equal = []
            equal.append(batch)
        if equal:
            yield stacked(equal)

    @property
    def _nobody_feeds_back(self) -> bool:
        # Batches that this execution feeds back itself are not reported as missing feedback, even
        # if it is interrupted.
        return self._hooks is not None and self._hooks.feedback is None

    def _beside(self, dataset: ReplayDataset | None, hooks: StepHooks) -> None:
        """Runs what a callback wants beside the program, then draws the next execution's stack.

        The stack has the rows that were collected just before. Its priorities are those before
        this execution.
        """
        if hooks.alongside is not None:
            hooks.alongside()
        num_batches = hooks.num_ahead if hooks.draws_ahead else 0
        if num_batches and dataset is not None and dataset.num_batches is not None:
            stack = dataset.stacked(num_batches).draw(expects_feedback=self._nobody_feeds_back)
            hooks.keep(num_batches, _as_tensors(stack))

    def _keys(self, stack: Any) -> Any:
        """Returns the keys of a stack, or None if it has none or is not trained on."""
        has_key = len(stack) > 1 and isinstance(stack[1], dict) and "key" in stack[1]
        if self._hooks is None or not has_key:
            return None
        if self._hooks.in_fit and self._hooks.feedback is None:
            raise ValueError(_NOBODY_FED_BACK)
        return stack[1]["key"]

    def _ready(self, stack: Any) -> Callable[[], tuple[dict, Any]]:
        """Returns a function of no arguments that runs the program on a stack."""
        if self._model.run_eagerly:
            self._build_for(stack)
            return partial(_run_eagerly, self._step, stack)
        num_batches = tf.nest.flatten(stack)[0].shape[0]
        stack = padded(stack, self._model.steps_per_execution - num_batches)
        if self._model.steps_per_execution == 1:
            inputs: tuple = (stack,)
        else:
            inputs = (stack, self._count_of(num_batches))
        return partial(self._program(*inputs), *inputs)

    def _program(self, *inputs: Any) -> Callable[..., tuple[dict, Any]]:
        """Returns the compiled program for stacks of this signature."""
        stack, *_ = inputs
        signature = signature_of(stack)
        if signature not in self._programs:
            self._build_for(stack)
            # A call of a concrete function saves 0.15 ms, because TensorFlow need not look it up.
            self._programs[signature] = self._function.get_concrete_function(*inputs)
        return self._programs[signature]

    def _build_for(self, stack: Any) -> None:
        batch = unpack_batch(batch_spec(stack))
        if not self._model.built:
            spec = batch.observation
            self._model.build(tf.nest.map_structure(lambda s: (None, *s.shape[1:]), spec))

    def _count_of(self, num_batches: int) -> tf.Tensor:
        """Returns a number as a tensor, which is made once."""
        if num_batches not in self._counts:
            self._counts[num_batches] = tf.constant(num_batches)
        return self._counts[num_batches]

    @cached_property
    def _function(self) -> Any:
        def run_one(stack: Any) -> tuple[dict, Any]:
            return _run_in_a_loop(self._step, stack, 1)

        def run_many(stack: Any, num_batches: tf.Tensor) -> tuple[dict, Any]:
            return _run_in_a_loop(self._step, stack, num_batches)

        run = run_one if self._model.steps_per_execution == 1 else run_many
        return tf.function(run, jit_compile=self._model.jit_compile, autograph=False)

    def _run_both(self, program: Callable[[], Any], alongside: Callable[[], Any]) -> Any:
        other = self._thread.submit(alongside)
        try:
            return program()
        finally:
            other.result()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1)


def counted(
    model: keras.Model, train_step: Callable[[Any], dict]
) -> Callable[[Any], tuple[dict, Any]]:
    """Returns a step that counts updates and returns logs and priorities (or None) separately."""

    def step(data: Any) -> tuple[dict, Any]:
        model.update_count.assign_add(1)
        return without_feedback(train_step(data), unpack_batch(data))

    return step


def _as_tensors(stack: Any) -> Any:
    return keras.tree.map_structure(tf.constant, stack)


def _run_in_a_loop(step: Callable, stack: Any, num_batches: Any) -> tuple[dict, Any]:
    num_slots = tf.nest.flatten(stack)[0].shape[0]
    one_step = tf.function(step, autograph=False).get_concrete_function(batch_spec(stack))
    logs, td_error = one_step.structured_outputs
    no_logs = tf.nest.map_structure(lambda log: tf.zeros(log.shape, log.dtype), logs)
    td_errors: list[tf.TensorArray] = []  # at most one
    if td_error is not None:
        td_errors = [tf.TensorArray(tf.float32, num_slots, element_shape=td_error.shape)]

    def body(k: tf.Tensor, _: dict, td_errors: list) -> tuple[tf.Tensor, dict, list]:
        logs, td_error = one_step(tf.nest.map_structure(itemgetter(k), stack))
        return k + 1, logs, [array.write(k, td_error) for array in td_errors]

    _, logs, td_errors = tf.while_loop(
        lambda k, *_: k < num_batches,
        body,
        (0, no_logs, td_errors),
        maximum_iterations=num_slots,
    )
    return logs, td_errors[0].stack() if td_errors else None


def _run_eagerly(step: Callable, stack: Any) -> tuple[dict, Any]:
    td_errors = []
    for k in range(tf.nest.flatten(stack)[0].shape[0]):
        logs, td_error = step(tf.nest.map_structure(itemgetter(k), stack))
        td_errors.append(td_error)
    return logs, None if td_error is None else tf.stack(td_errors)
