"""Runs the one training step of `train_on_batch` in one compiled program."""

from collections.abc import Callable, Hashable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dqn.trainers.batch import unpack_batch
from keras_dqn.trainers.stacks import signature_of, without_missing


class OneBatch:
    """Runs `train_step` on a batch; the logs describe only this batch.

    The program itself resets the metrics, so no variable of a metric needs an eager call.

    Args:
        model: A compiled `ReplayTrainer` on one replica.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._programs: dict[Hashable, Callable[[Any], dict]] = {}

    def __call__(self, batch: tuple) -> dict[str, Any]:
        """Returns the logs: floats, and arrays `[B]` for logs with one value for each row.

        Args:
            batch: `(observation, transition, weight)`, arrays or tensors; the weight may be None.
        """
        batch = tf.nest.map_structure(np.asarray, without_missing(batch))
        if self._model.run_eagerly:
            batch = tf.nest.map_structure(tf.constant, batch)
            self._build_for(batch)
            return _to_numpy(self._step(batch))
        signature = signature_of(batch)
        if signature not in self._programs:
            self._programs[signature] = self._compiled(batch)
        return _to_numpy(self._programs[signature](_packed(batch)))

    def _compiled(self, batch: Any) -> Callable[[Any], dict]:
        self._build_for(batch)
        packed = _packed(batch)
        shapes = [(leaf.shape, leaf.dtype) for leaf in tf.nest.flatten(batch)]

        def step(packed: list) -> dict:
            leaves = _unpacked(packed, shapes)
            return self._step(tf.nest.pack_sequence_as(batch, leaves))

        num_variables = None
        while num_variables != len(self._model.metrics_variables):
            # The first trace creates the variables of `compile(metrics=...)`. A second trace is
            # needed to reset them.
            num_variables = len(self._model.metrics_variables)
            function = tf.function(step, jit_compile=self._model.jit_compile, autograph=False)
            program = function.get_concrete_function(packed)
        return program

    def _build_for(self, batch: Any) -> None:
        self._model.build_for(unpack_batch(batch).observation)

    def _step(self, batch: Any) -> dict:
        for metric in self._model.metrics:
            metric.reset_state()
        self._model.update_count.assign_add(1)
        return dict(self._model.train_step(batch))


def _packed(batch: Any) -> list[tf.Tensor]:
    """Joins all arrays of one dtype into one vector: TensorFlow needs 40 us for each argument."""
    groups: dict[np.dtype, list[np.ndarray]] = {}
    for leaf in tf.nest.flatten(batch):
        groups.setdefault(leaf.dtype, []).append(leaf.reshape(-1))
    return [tf.constant(np.concatenate(leaves)) for leaves in groups.values()]


def _unpacked(packed: list[tf.Tensor], shapes: list[tuple]) -> list[tf.Tensor]:
    """Returns the single tensors from the vectors of `_packed`."""
    vectors = {tf.as_dtype(vector.dtype).as_numpy_dtype: vector for vector in packed}
    ends = dict.fromkeys(vectors, 0)
    leaves = []
    for shape, dtype in shapes:
        begin = ends[dtype.type]
        ends[dtype.type] = begin + int(np.prod(shape))
        leaves.append(tf.reshape(vectors[dtype.type][begin : ends[dtype.type]], shape))
    return leaves


def _to_numpy(logs: dict) -> dict[str, Any]:
    values = {name: np.asarray(value) for name, value in logs.items()}
    return {name: value if value.ndim else float(value) for name, value in values.items()}
