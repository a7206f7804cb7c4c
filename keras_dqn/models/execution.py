"""K steps of a model in one compiled program: what `train_function` and `test_function` are here.

A stack is the batch of `fit` with one more axis in front, `[K, B, ...]`: K batches of equal shape.
"""

from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import keras
import tensorflow as tf


def make_execution(model: keras.Model, step: Callable[[Any], dict]) -> Callable[[Iterator], dict]:
    """Returns the function of an iterator that Keras calls once per execution.

    It takes from the iterator one stack, or as many batches as `steps_per_execution` says, and
    runs `step` on each of them in order. Batches of equal shape run in one program; one of another
    shape (a smaller last batch) is a program of its own.

    Args:
        model: A compiled Keras model; its `jit_compile` and `run_eagerly` are respected.
        step: Function of a batch that returns a dict of scalars, `train_step` or `test_step`.

    Returns:
        A function that returns the last step's dict and raises `StopIteration` when there is no
        batch left.
    """
    run = partial(_run_eagerly if model.run_eagerly else _run_in_a_loop, step)
    if not model.run_eagerly:
        run = tf.function(run, jit_compile=model.jit_compile, autograph=False)

    def function(iterator: Iterator) -> dict:
        logs = None
        for stack in _stacks(iterator, model.steps_per_execution):
            _build(model, stack)
            logs = run(stack)
        if logs is None:
            raise StopIteration
        return logs

    return function


def _run_in_a_loop(step: Callable, stack: Any) -> dict:
    num_batches = tf.nest.flatten(stack)[0].shape[0]
    batch_spec = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), stack)
    one_step = tf.function(step, autograph=False).get_concrete_function(batch_spec)
    no_logs = tf.nest.map_structure(
        lambda log: tf.zeros(log.shape, log.dtype), one_step.structured_outputs
    )

    def body(k: tf.Tensor, _: dict) -> tuple[tf.Tensor, dict]:
        return k + 1, one_step(tf.nest.map_structure(itemgetter(k), stack))

    _, logs = tf.while_loop(
        lambda k, _: k < num_batches, body, (0, no_logs), maximum_iterations=num_batches
    )
    return logs


def _run_eagerly(step: Callable, stack: Any) -> dict:
    for k in range(tf.nest.flatten(stack)[0].shape[0]):
        logs = step(tf.nest.map_structure(itemgetter(k), stack))
    return logs


def _stacks(iterator: Iterator, num_batches: int) -> Iterator[Any]:
    """Yields the next `num_batches` batches, neighbours of equal shapes as one stack."""
    equal: list[Any] = []
    for _ in range(num_batches):
        batch = next(iterator, None)
        if batch is None:
            break
        if is_stack(batch):
            yield batch
            return
        batch = tf.nest.map_structure(tf.convert_to_tensor, _without_missing(batch))
        if equal and _shapes(batch) != _shapes(equal[-1]):
            yield _stack(equal)
            equal = []
        equal.append(batch)
    if equal:
        yield _stack(equal)


def is_stack(batch: Any) -> bool:
    """Returns whether rewards are `[K, B]`, those of a stack, and not `[B]`."""
    _, transition, _ = unpack_batch(batch)
    return "reward" in transition and len(transition["reward"].shape) == 2


class Batch(NamedTuple):
    """What `fit` unpacks: `[B, ...]`, a dict of `[B, ...]`, and `[B]` or None."""

    observation: Any
    transition: dict
    weight: Any


def unpack_batch(batch: Any) -> Batch:
    """Returns the observation, the transition and the weight (or None) of a batch of `fit`."""
    observation, transition, weight = keras.utils.unpack_x_y_sample_weight(batch)
    if isinstance(weight, dict):  # Keras repeats the weights of arrays for each entry of a dict.
        weight = weight["reward"]
    return Batch(observation, transition, weight)


def _without_missing(batch: Any) -> tuple:
    return tuple(part for part in batch if part is not None)


def _stack(batches: list[Any]) -> Any:
    return tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *batches)


def _shapes(batch: Any) -> list[tf.TensorShape]:
    return [leaf.shape for leaf in tf.nest.flatten(batch)]


def _build(model: keras.Model, stack: Any) -> None:
    if not model.built:
        observation = unpack_batch(stack).observation
        model.build(tf.nest.map_structure(lambda t: (None, *t.shape[2:]), observation))
