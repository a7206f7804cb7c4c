"""Notices when other code resets or steps an environment that the package is stepping.

Gymnasium does not report this. So the package counts the calls of `reset` and `step`. The counts
are in one attribute of the unwrapped environment, which all wrappers around it share.
"""

from contextlib import suppress
from typing import Any

from keras_dqn.spaces.env_spaces import Environment

_ATTRIBUTE = "keras_dqn_calls"


class EnvCalls:
    """Counts the calls of an environment's `reset` and `step`, and names the last caller.

    Attributes:
        count: Int, calls so far.
        last: String, the name of the last caller; None for a call from outside the package.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last: str | None = None


class CountedMethod:
    """A method of an environment that counts its calls. A copied environment counts its own calls.

    Args:
        env: The unwrapped environment.
        method: Its bound method.
    """

    def __init__(self, env: Any, method: Any) -> None:
        self.env = env
        self.method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the method."""
        calls = getattr(self.env, _ATTRIBUTE)
        calls.count += 1
        calls.last = None
        return self.method(*args, **kwargs)


def calls_of(env: Environment) -> EnvCalls:
    """Returns the counts of an environment; counting starts at the first call of this function."""
    base: Any = env.unwrapped
    calls = vars(base).get(_ATTRIBUTE) if hasattr(base, "__dict__") else None
    if calls is None:
        calls = EnvCalls()
        with suppress(AttributeError):  # an environment with slots is not counted
            setattr(base, _ATTRIBUTE, calls)
            for name in ("reset", "step"):
                setattr(base, name, CountedMethod(base, getattr(base, name)))
    return calls
