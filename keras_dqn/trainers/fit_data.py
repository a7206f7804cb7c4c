"""Prepares a dataset for executions of K steps, and checks the requested number of steps."""

from typing import Any

import tensorflow as tf

from keras_dqn.arguments import check_integer
from keras_dqn.replay.protocols import Replay
from keras_dqn.replay.replay_dataset import ReplayDataset


def check_data(x: Any) -> None:
    """Raises a `TypeError` if `x` is a replay buffer instead of its dataset."""
    if isinstance(x, Replay):
        raise TypeError(
            "`x` must be a dataset: `replay.dataset(batch_size, gamma=..., n_step=...)`. Received: "
            f"x={x}"
        )


def check_steps(argument: str, dataset: Any, steps: int | None) -> None:
    """Raises a `ValueError` if a dataset is endless and no number of steps is given."""
    if steps is not None:
        check_integer(argument, steps)
    is_dataset = isinstance(dataset, tf.data.Dataset)
    if is_dataset and steps is None and dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"`{argument}` must be given: the dataset is endless and would never finish. "
            f"Received: {argument}=None"
        )


def check_executions_end(x: Any, steps_per_epoch: int | None, steps_per_execution: int) -> None:
    """Raises a `ValueError` if Keras would miscount the steps on data that has an end."""
    endless = isinstance(x, tf.data.Dataset) and x.cardinality() < 0
    if steps_per_epoch is not None and steps_per_epoch % steps_per_execution and not endless:
        raise ValueError(
            "`steps_per_epoch` must be a multiple of `steps_per_execution` on data that has an "
            f"end. Received: {steps_per_epoch=}, {steps_per_execution=}"
        )


def drawn_in_executions(model: Any, dataset: Any, steps: int | None) -> Any:
    """Returns a dataset that delivers whole executions, or exactly `steps` batches.

    Args:
        model: A `ReplayTrainer`.
        dataset: A `tf.data.Dataset`. Other data is returned unchanged, and so is any dataset if
            Keras' own loop draws the batches.
        steps: Int or None, batches to deliver.

    Raises:
        ValueError: If its stacks do not hold `steps_per_execution` batches.
    """
    steps_per_execution = model.steps_per_execution
    if model.num_replicas > 1 or not isinstance(dataset, tf.data.Dataset):
        return dataset
    is_replay = isinstance(dataset, ReplayDataset)
    if is_replay and dataset.num_batches not in (None, steps_per_execution):
        raise ValueError(
            "A `ReplayDataset` of stacks must have `num_batches` equal to `steps_per_execution`. "
            f"Received: num_batches={dataset.num_batches}, {steps_per_execution=}"
        )
    if steps is not None and steps % steps_per_execution:
        return dataset.take(steps)
    # Under a one-device strategy Keras builds the loss from the first element, as if it were a
    # batch.
    one_device = isinstance(model.distribute_strategy, tf.distribute.OneDeviceStrategy)
    return dataset.stacked(steps_per_execution) if is_replay and not one_device else dataset
