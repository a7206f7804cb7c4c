"""One training step as `train_on_batch` takes it, in one compiled program."""

from collections.abc import Callable, Hashable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dqn.trainers.batch import unpack_batch
from keras_dqn.trainers.stacks import signature_of, without_missing


class OneBatch:
    """Runs `train_step` on a batch; the logs are those of this batch alone.

    Metrics are reset inside the program, which spares an eager call for each of their variables.

    Args:
        model: A compiled `ReplayTrainer` on one replica.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._programs: dict[Hashable, Callable[[Any], dict]] = {}

    def __call__(self, batch: tuple) -> dict[str, Any]:
        """Returns the logs: floats, and arrays `[B]` of what there is for each row.

        Args:
            batch: `(observation, transition, weight)`, arrays or tensors; the weight may be None.
        """
        batch = tf.nest.map_structure(tf.convert_to_tensor, without_missing(batch))
        if self._model.run_eagerly:
            self._build_for(batch)
            return _to_numpy(self._step(batch))
        signature = signature_of(batch)
        if signature not in self._programs:
            self._programs[signature] = self._compiled(batch)
        return _to_numpy(self._programs[signature](batch))

    def _compiled(self, batch: Any) -> Callable[[Any], dict]:
        self._build_for(batch)
        num_variables = None
        while num_variables != len(self._model.metrics_variables):
            # The first trace makes the variables of `compile(metrics=...)`, a second resets them.
            num_variables = len(self._model.metrics_variables)
            function = tf.function(
                self._step, jit_compile=self._model.jit_compile, autograph=False
            ).get_concrete_function(batch)
        return function

    def _build_for(self, batch: Any) -> None:
        self._model.build_for(unpack_batch(batch).observation)

    def _step(self, batch: Any) -> dict:
        for metric in self._model.metrics:
            metric.reset_state()
        self._model.update_count.assign_add(1)
        return dict(self._model.train_step(batch))


def _to_numpy(logs: dict) -> dict[str, Any]:
    values = {name: np.asarray(value) for name, value in logs.items()}
    return {name: value if value.ndim else float(value) for name, value in values.items()}
