"""Checks ranks and dtypes once, while a function is traced: broadcasting would hide mistakes."""

from typing import Any

import keras


def check_rank(name: str, tensor: Any, *ranks: int) -> None:
    """Raises a `ValueError` unless a tensor has one of these ranks."""
    if len(tensor.shape) not in ranks:
        raise ValueError(
            f"`{name}` must have rank {' or '.join(map(str, ranks))}. Received: shape="
            f"{tuple(tensor.shape)}"
        )


def check_integer(name: str, tensor: Any) -> None:
    """Raises a `ValueError` unless a tensor holds integers."""
    if not is_integer(tensor):
        raise ValueError(f"`{name}` must be integer. Received: dtype={tensor.dtype}")


def is_integer(tensor: Any) -> bool:
    """Returns whether a tensor holds integers."""
    return keras.backend.is_int_dtype(tensor.dtype)
