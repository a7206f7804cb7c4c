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
        self._names: list[str] = []

    def __call__(self, batch: tuple) -> dict[str, Any]:
        """Returns the logs: floats, and arrays `[B]` for logs with one value for each row.

        Args:
            batch: `(observation, transition, weight)`, arrays or tensors; the weight may be None.
        """
        batch = tf.nest.map_structure(np.asarray, without_missing(batch))
        if self._model.run_eagerly:
            batch = tf.nest.map_structure(tf.constant, batch)
            self._build_for(batch)
            return self._to_numpy(self._step(batch))
        signature = signature_of(batch)
        if signature not in self._programs:
            self._programs[signature] = self._compiled(batch)
        return self._to_numpy(self._programs[signature](_packed(batch)))

    def _compiled(self, batch: Any) -> Callable[[Any], dict]:
        self._build_for(batch)
        specs = [(leaf.shape, tf.as_dtype(leaf.dtype)) for leaf in tf.nest.flatten(batch)]

        def step(packed: tf.Tensor) -> dict:
            return self._step(tf.nest.pack_sequence_as(batch, _unpacked(packed, specs)))

        num_variables = None
        while num_variables != len(self._model.metrics_variables):
            # The first trace makes the variables of `compile(metrics=...)`, a second resets them.
            num_variables = len(self._model.metrics_variables)
            function = tf.function(step, jit_compile=self._model.jit_compile, autograph=False)
            program = function.get_concrete_function(_packed(batch))
        return program

    def _build_for(self, batch: Any) -> None:
        self._model.build_for(unpack_batch(batch).observation)

    def _step(self, batch: Any) -> dict:
        for metric in self._model.metrics:
            metric.reset_state()
        self._model.update_count.assign_add(1)
        logs = dict(self._model.train_step(batch))
        self._names = list(logs)  # some releases of TensorFlow return a dict in another order
        return logs

    def _to_numpy(self, logs: dict) -> dict[str, Any]:
        values = {name: np.asarray(logs[name]) for name in self._names}
        return {name: value if value.ndim else float(value) for name, value in values.items()}


def values_in_order(model: keras.Model, logs: dict[str, Any]) -> float | list[float]:
    """Returns the scalars of the logs in the order in which Keras returns them; one alone."""
    # Keras' metric of `compile(metrics=...)` holds several.
    parts = [part for m in model.metrics for part in getattr(m, "metrics", [m])]
    names = dict.fromkeys([*(part.name for part in parts if part.name in logs), *logs])
    values = [logs[name] for name in names if isinstance(logs[name], float)]
    return values[0] if len(values) == 1 else values


def _packed(batch: Any) -> tf.Tensor:
    """Returns the bytes of all arrays as one vector: each argument costs TensorFlow 40 us."""
    leaves = [np.ascontiguousarray(leaf).reshape(-1) for leaf in tf.nest.flatten(batch)]
    return tf.constant(np.concatenate([leaf.view(np.uint8) for leaf in leaves]))


def _unpacked(packed: tf.Tensor, specs: list[tuple]) -> list[tf.Tensor]:
    """Returns the tensors of these shapes and dtypes that `_packed` has put together."""
    leaves, end = [], 0
    for shape, dtype in specs:
        begin, end = end, end + dtype.size * int(np.prod(shape))
        if dtype.size == 1:
            leaf = tf.reshape(packed[begin:end], shape)
        else:
            leaf = tf.reshape(packed[begin:end], (*shape, dtype.size))
        leaf = tf.cast(leaf, dtype) if dtype.is_bool else tf.bitcast(leaf, dtype)
        leaves.append(leaf)
    return leaves
