"""A replay buffer as a `tf.data.Dataset`, from which `model.fit` draws its batches."""

from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary, WeakMethod

import numpy as np
import tensorflow as tf

from keras_dqn.arguments import check_type
from keras_dqn.replay.checks import check_sampling
from keras_dqn.replay.protocols import DrawnFrom, Replay, TakesPriorities


class ReplayDataset(tf.data.Dataset):
    """An endless dataset of `(observation, transition, weight)` drawn from a replay buffer.

    Each batch is drawn when it is needed, never before, so it can hold transitions that were added
    just before. It is a real `tf.data.Dataset`: `map`, `take` and any `model.fit` work on it.

    Args:
        replay: `ReplayBuffer`, or another `Replay` (see `replay/protocols.py`).
        batch_size: Int, transitions in a batch, B.
        gamma: Float in [0, 1], the discount of one environment step. Defaults to `0.99`.
        n_step: Int, environment steps in a return, n. Defaults to `1`.
        num_batches: Int or None, batches in a stack. If set, each element is a stack
            `[num_batches, B, ...]`, drawn in one call. Defaults to `None`.

    Attributes:
        prioritized: Bool, whether the buffer takes TD errors as priorities.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        replay: Replay,
        batch_size: int,
        *,
        gamma: float = 0.99,
        n_step: int = 1,
        num_batches: int | None = None,
    ) -> None:
        check_type("replay", replay, DrawnFrom, "a ReplayBuffer")
        check_sampling(batch_size, gamma, n_step, num_batches)
        self.replay = replay
        self._feedback = replay if isinstance(replay, TakesPriorities) else None
        self.prioritized = self._feedback is not None
        self.batch_size = batch_size
        self.gamma = gamma
        self.n_step = n_step
        self.num_batches = num_batches
        self._element_spec = self._spec_of_sample()
        self._drawn = _drawn_when_asked(self.draw, self._element_spec)
        super().__init__(tf.data.experimental.to_variant(self._drawn))

    @property
    def element_spec(self) -> Any:
        """The shapes and dtypes of an element, as nested `tf.TensorSpec`s."""
        return self._element_spec

    def _inputs(self) -> list:
        return []

    def stacked(self, num_batches: int) -> "ReplayDataset":
        """Returns the dataset whose elements are stacks of `num_batches` batches."""
        if num_batches == self.num_batches:
            return self
        if num_batches not in self._stacks:
            self._stacks[num_batches] = ReplayDataset(
                self.replay,
                self.batch_size,
                gamma=self.gamma,
                n_step=self.n_step,
                num_batches=num_batches,
            )
        return self._stacks[num_batches]

    @cached_property
    def _stacks(self) -> dict[int, "ReplayDataset"]:
        return {}

    def __iter__(self) -> Any:
        """Returns an iterator of tf.data; `replay_dataset_of` returns this dataset for it."""
        iterator: Any = super().__iter__()
        _DATASETS[iterator] = self
        return iterator

    def draw(self, expects_feedback: bool = True) -> tuple:
        """Draws the next element, in NumPy.

        Args:
            expects_feedback: Bool, whether TD errors should come back to a prioritized buffer, as
                in training. Defaults to `True`.
        """
        if expects_feedback and self._feedback is not None:
            self._feedback.expect_feedback(self.num_batches or 1)
        return self.replay.sample(
            self.batch_size, gamma=self.gamma, n_step=self.n_step, num_batches=self.num_batches
        )

    def _spec_of_sample(self) -> Any:
        lead: tuple[int, ...] = (self.batch_size,)
        if self.num_batches is not None:
            lead = (self.num_batches, *lead)
        return tf.nest.map_structure(
            lambda array: tf.TensorSpec((*lead, *array.shape[1:]), array.dtype),
            self.replay.empty_batch(),
        )


_DATASETS: WeakKeyDictionary[Any, ReplayDataset] = WeakKeyDictionary()


def replay_dataset_of(iterator: Any) -> ReplayDataset | None:
    """Returns the `ReplayDataset` of an iterator; None if its dataset is of another kind."""
    return _DATASETS.get(iterator) if isinstance(iterator, tf.data.Iterator) else None


def _drawn_when_asked(draw: Any, spec: Any) -> tf.data.Dataset:
    dtypes = [leaf.dtype for leaf in tf.nest.flatten(spec)]

    # TensorFlow never frees `flat`, so it holds the buffer only by a weak reference. Iterators and
    # transformed datasets keep the dataset alive, and nothing else draws.
    weak_draw: Any = WeakMethod(draw)

    def flat() -> list[np.ndarray]:
        return tf.nest.flatten(weak_draw()())

    @tf.autograph.experimental.do_not_convert
    def element(_: tf.Tensor) -> Any:
        leaves = tf.numpy_function(flat, [], dtypes, stateful=True)
        for leaf, leaf_spec in zip(leaves, tf.nest.flatten(spec), strict=True):
            leaf.set_shape(leaf_spec.shape)
        return tf.nest.pack_sequence_as(spec, leaves)

    return never_ahead(tf.data.Dataset.from_tensors(0).repeat().map(element))


def never_ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset whose elements tf.data makes when they are needed, never before.

    An injected prefetch, or a user's `map` that autotuning makes parallel, would draw batches
    early. Such a batch would miss the steps that are collected before it is used.
    """
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    options.autotune.enabled = False
    return dataset.with_options(options)
