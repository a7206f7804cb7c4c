"""Refuses settings that do not work on several replicas, because Keras' own loop runs them."""

from typing import Any

import tensorflow as tf


def draws_in_advance(model: Any) -> bool:
    """Returns whether the distribution strategy of a model draws batches before they are used."""
    dataset = tf.data.Dataset.range(1)  # without a strategy, it is returned unchanged
    return model.distribute_strategy.experimental_distribute_dataset(dataset) is not dataset


def refuse_replicas(model: Any, what: str) -> None:
    """Raises a `ValueError` if a model runs on several replicas."""
    if model.num_replicas > 1:
        raise ValueError(
            f"{what} under a distribution strategy of several replicas, in Keras' own loop. "
            f"Received: strategy={model.distribute_strategy}"
        )


def refuse_many_steps_on_many_replicas(model: Any) -> None:
    """Raises a `ValueError` if a model runs several steps per execution on several replicas."""
    if model.num_replicas > 1 and model.steps_per_execution > 1:
        raise ValueError(
            "`steps_per_execution` must be 1 under a distribution strategy of several "
            f"replicas. Received: steps_per_execution={model.steps_per_execution}, "
            f"replicas={model.num_replicas}"
        )
