"""Checks arguments. Each error is one line: the argument, the expected value, the received value.

A wrong type is a `TypeError`, a value outside the range a `ValueError`. NumPy's numbers count as
numbers; `True` and `False` do not.
"""

import math
import numbers
from typing import Any

import numpy as np


def check_integer(name: str, value: Any, minimum: int | None = 1) -> int:
    """Returns an argument as an int. It must be an integer of at least `minimum` (None: any)."""
    if type(value) is int and (minimum is None or value >= minimum):
        return value
    if not _is_number(value):
        raise TypeError(f"`{name}` must be an integer. Received: {_received(name, value)}")
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"`{name}` must be an integer. Received: {name}={value!r}")
    if not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be an integer. Received: {_received(name, value)}")
    if minimum is not None and value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}. Received: {name}={value}")
    return int(value)


def check_number(
    name: str,
    value: Any,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    above: bool = False,
) -> float:
    """Returns an argument as a float. It must be a finite number in a range.

    Args:
        name: String, the name of the argument.
        value: The value that was given.
        minimum: Float, the smallest allowed value.
        maximum: Float, the largest allowed value.
        above: Bool, whether `minimum` itself is excluded. Defaults to `False`.
    """
    if type(value) is float and minimum < value < maximum:
        return value
    if not _is_number(value):
        raise TypeError(f"`{name}` must be a number. Received: {_received(name, value)}")
    inside = minimum < value if above else minimum <= value
    if not (inside and value <= maximum and math.isfinite(value)):
        wanted = _range(minimum, maximum, above)
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value}")
    return float(value)


def check_schedule(name: str, value: Any) -> None:
    """Raises a `TypeError` unless an argument is a number or a function of a count."""
    if isinstance(value, type) or not (callable(value) or _is_number(value)):
        raise TypeError(
            f"`{name}` must be a number or a function of the step count. Received: "
            f"{_received(name, value)}"
        )


def check_bool(name: str, value: Any) -> bool:
    """Returns an argument as a bool. It must be True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False. Received: {_received(name, value)}")
    return bool(value)


def check_seed(value: Any) -> int | None:
    """Returns a seed as an int of at least 0, or None."""
    return None if value is None else check_integer("seed", value, minimum=0)


def check_type(name: str, value: Any, kind: Any, expected: str) -> None:
    """Raises a `TypeError` unless an argument is of a type or follows a protocol."""
    if not isinstance(value, kind) or isinstance(value, type):
        raise TypeError(f"`{name}` must be {expected}. Received: {_received(name, value)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def _received(name: str, value: Any) -> str:
    text = repr(value)
    short = text if len(text) <= 80 else f"{text[:77]}..."
    return f"{name}={short} of type {type(value).__name__}"


def _range(minimum: float, maximum: float, above: bool) -> str:
    if math.isfinite(maximum):
        return f"in {'(' if above else '['}{minimum:g}, {maximum:g}]"
    if math.isfinite(minimum):
        return f"{'above' if above else 'at least'} {minimum:g}"
    return "a finite number"


def check_below(name: str, value: Any, stop: int) -> int:
    """Returns an integer in [0, `stop`) as an int."""
    value = check_integer(name, value, 0)
    if value >= stop:
        raise ValueError(f"`{name}` must be in [0, {stop}). Received: {name}={value}")
    return value
