"""Stacks batches of tensors into `[K, B, ...]`, and computes the signatures of stacks."""

from collections.abc import Hashable
from typing import Any

import tensorflow as tf


def without_missing(batch: Any) -> tuple:
    """Returns a batch as a tuple, without parts that are None."""
    parts = batch if isinstance(batch, (tuple, list)) else (batch,)
    return tuple(part for part in parts if part is not None)


def stacked(batches: list[Any]) -> Any:
    """Returns batches of equal shapes as one stack `[K, B, ...]`."""
    return tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *batches)


def padded(stack: Any, num_slots: int) -> Any:
    """Appends `num_slots` batches of zeros to a stack; the program does not run them."""
    if num_slots == 0:
        return stack
    return tf.nest.map_structure(
        lambda leaf: tf.concat([leaf, tf.zeros((num_slots, *leaf.shape[1:]), leaf.dtype)], 0), stack
    )


def batch_spec(stack: Any) -> Any:
    """Returns the shapes and dtypes of a single batch of a stack."""
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), stack)


def signature_of(stack: Any) -> Hashable:
    """Returns structure, shapes and dtypes; stacks with equal signatures share one program."""
    if isinstance(stack, dict):
        return tuple((key, signature_of(value)) for key, value in stack.items())
    if isinstance(stack, (tuple, list)):
        return tuple(signature_of(value) for value in stack)
    return tuple(stack.shape), stack.dtype


def shapes_of(batch: Any) -> list[tf.TensorShape]:
    """Returns the shapes of all tensors of a batch."""
    return [leaf.shape for leaf in tf.nest.flatten(batch)]
