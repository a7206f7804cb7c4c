"""Notices when somebody else resets or steps an environment that is being stepped.

Nothing in Gymnasium tells of it. So the calls of `reset` and `step` are counted, in one attribute
of the unwrapped environment, which all wrappers around it share.
"""

from contextlib import suppress
from typing import Any

from keras_dqn.spaces.env_spaces import Environment

_ATTRIBUTE = "keras_dqn_calls"


class EnvCalls:
    """How often an environment was reset or stepped, and by whom last.

    Attributes:
        count: Int.
        last: String, who made the last call; None for a call outside the package.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last: str | None = None


class CountedMethod:
    """A method of an environment that counts its calls; copies of the environment have their own.

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
    """Returns the counts of an environment, which it keeps from the first call on."""
    base: Any = env.unwrapped
    calls = vars(base).get(_ATTRIBUTE) if hasattr(base, "__dict__") else None
    if calls is None:
        calls = EnvCalls()
        with suppress(AttributeError):  # of an environment with slots nothing is counted
            setattr(base, _ATTRIBUTE, calls)
            for name in ("reset", "step"):
                setattr(base, name, CountedMethod(base, getattr(base, name)))
    return calls
