"""Batches of tensors and stacks `[K, B, ...]` of them, and their signatures."""

from collections.abc import Hashable
from typing import Any

import tensorflow as tf


def without_missing(batch: Any) -> tuple:
    """Returns a batch as a tuple without the parts that are None."""
    parts = batch if isinstance(batch, (tuple, list)) else (batch,)
    return tuple(part for part in parts if part is not None)


def stacked(batches: list[Any]) -> Any:
    """Returns batches of equal shapes as one stack `[K, B, ...]`."""
    return tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *batches)


def padded(stack: Any, num_slots: int) -> Any:
    """Returns a stack with so many more batches of zeros, which the program does not run."""
    if num_slots == 0:
        return stack
    return tf.nest.map_structure(
        lambda leaf: tf.concat([leaf, tf.zeros((num_slots, *leaf.shape[1:]), leaf.dtype)], 0), stack
    )


def batch_spec(stack: Any) -> Any:
    """Returns the shapes and dtypes of one batch of a stack."""
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), stack)


def signature_of(stack: Any) -> Hashable:
    """Returns a stack's structure, shapes and dtypes: stacks of equal ones share one program."""
    if isinstance(stack, dict):
        return tuple((key, signature_of(value)) for key, value in stack.items())
    if isinstance(stack, (tuple, list)):
        return tuple(signature_of(value) for value in stack)
    return tuple(stack.shape), stack.dtype


def shapes_of(batch: Any) -> list[tf.TensorShape]:
    """Returns the shapes of all tensors of a batch."""
    return [leaf.shape for leaf in tf.nest.flatten(batch)]
