"""Schedules for exploration: plain functions of a count, int to float, evaluated on the host.

Any callable of the count of environment steps can replace them, such as Keras' learning-rate
schedules.
"""

from collections.abc import Callable
from typing import Any, Literal

from keras_dqn.arguments import check_number

Schedule = float | Callable[[int], Any]


class LinearSchedule:
    """Goes from one value to another in a straight line and stays there.

    ```
    value(step) = initial_value + (end_value - initial_value) * min(step / decay_steps, 1)
    ```

    Args:
        initial_value: Float, the value at step 0.
        end_value: Float, the value from `decay_steps` on.
        decay_steps: Int, environment steps (transitions over all environments) until `end_value`,
            at least 1.

    Raises:
        ValueError: If `decay_steps` is below 1.

    Example:
    >>> LinearSchedule(1.0, 0.0, 100)(25)
    0.75

    Reference:
        Mnih et al., 2015, Extended Data Table 1 (1.0 to 0.1 over 1,000,000 frames).
    """

    unit = "steps"

    def __init__(self, initial_value: float, end_value: float, decay_steps: int) -> None:
        self.initial_value = check_number("initial_value", initial_value)
        self.end_value = check_number("end_value", end_value)
        self.decay_steps = check_number("decay_steps", decay_steps, 1.0)

    def __call__(self, step: int) -> float:
        """Returns the value at a count of environment steps."""
        fraction = min(step / self.decay_steps, 1.0)
        return (1.0 - fraction) * self.initial_value + fraction * self.end_value


class ExponentialSchedule:
    """Multiplies a value by a constant at each environment step or episode, down to `end_value`.

    ```
    value(count) = max(initial_value * decay_rate ** count, end_value)
    ```

    This is the `epsilon *= 0.995` of many tutorials: `ExponentialSchedule(1.0, 0.995, 0.01,
    unit="episodes")`.

    Args:
        initial_value: Float, the value at count 0.
        decay_rate: Float in (0, 1], the factor per environment step or episode.
        end_value: Float, the smallest value. Defaults to `0.0`.
        unit: `"steps"` counts environment steps, `"episodes"` counts finished episodes, both over
            all environments. Defaults to `"steps"`.

    Raises:
        ValueError: If `decay_rate` is outside (0, 1], or `unit` is another string.

    Example:
    >>> ExponentialSchedule(1.0, 0.5, 0.1)(2)
    0.25
    """

    def __init__(
        self,
        initial_value: float,
        decay_rate: float,
        end_value: float = 0.0,
        *,
        unit: Literal["steps", "episodes"] = "steps",
    ) -> None:
        check_number("initial_value", initial_value)
        check_number("decay_rate", decay_rate, 0.0, 1.0, above=True)
        check_number("end_value", end_value)
        if unit not in ("steps", "episodes"):
            raise ValueError(f'`unit` must be "steps" or "episodes". Received: {unit=}')
        self.initial_value = initial_value
        self.decay_rate = decay_rate
        self.end_value = end_value
        self.unit = unit

    def __call__(self, count: int) -> float:
        """Returns the value at a count of environment steps or of episodes, as `unit` says."""
        return max(self.initial_value * self.decay_rate**count, self.end_value)
