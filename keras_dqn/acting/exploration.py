"""Exploration on the host: `[E, A]` NumPy action values in, `[E]` 0-based actions out.

A collector calls `update` once per execution with its counts, and `__call__` once per vector step
with its own random generator. So one seed determines a run.
"""

from typing import Any

import numpy as np

from keras_dqn.arguments import check_schedule
from keras_dqn.schedules import Schedule
from keras_dqn.spaces.action_spec import greedy_actions, random_actions
from keras_dqn.stateful import Stateful


class Exploration:
    """A rule that chooses actions by their values, and may follow a schedule.

    Attributes:
        logs: Dict of names and numbers that a collector puts into the logs of `fit`.
    """

    def __init__(self) -> None:
        self.logs: dict[str, float] = {}

    def update(self, env_steps: int, episodes: int) -> None:
        """Reads the schedule, if there is one, at these counts."""

    def __call__(self, q_values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns `[E]` int64 actions, 0-based, for `[E, A]` action values."""
        raise NotImplementedError

    def get_state(self) -> dict[str, Any]:
        """Returns the last value of the schedule; an empty dict for a rule without a schedule."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""


class Greedy(Exploration):
    """Takes the action with the highest value; of equal values, the lowest action."""

    def __call__(self, q_values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns `[E]` int64 actions for `[E, A]` action values."""
        return greedy_actions(q_values)


class ScheduledExploration(Exploration):
    """A rule with one number that follows a schedule.

    Args:
        name: String, the name of the number in the logs.
        schedule: Float, or a callable of a count of environment steps or of episodes (see
            `read_schedule`).

    Attributes:
        value: Float, the last value of the schedule.
    """

    def __init__(self, name: str, schedule: Schedule) -> None:
        super().__init__()
        check_schedule(name, schedule)
        self._name = name
        self._schedule = schedule
        self.update(0, 0)

    def update(self, env_steps: int, episodes: int) -> None:
        """Reads the schedule at these counts.

        Raises:
            ValueError: If its value is outside the range of the rule.
        """
        self._take(read_schedule(self._schedule, env_steps, episodes))

    def check(self, value: float) -> None:
        """Raises a `ValueError` if a value is outside the range of the rule."""

    def get_state(self) -> dict[str, Any]:
        """Returns the last value of the schedule, and the schedule's state if it has one."""
        state: dict[str, Any] = {"value": self.value}
        if isinstance(self._schedule, Stateful):
            state["schedule"] = self._schedule.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
        self._take(state["value"])
        if isinstance(self._schedule, Stateful):
            self._schedule.set_state(state["schedule"])

    def _take(self, value: float) -> None:
        self.check(value)
        self.value = value
        self.logs = {self._name: value}


class EpsilonGreedy(ScheduledExploration):
    """Takes a uniformly random action with probability epsilon, else the greedy one.

    Each environment of a vector environment makes its own random choice.

    Args:
        epsilon: Float in [0, 1], or a callable of the count of environment steps, such as
            `LinearSchedule` or `ExponentialSchedule`. It is read once per execution.

    Raises:
        ValueError: If epsilon is outside [0, 1], here or when the schedule is read.

    Example:
    >>> explore = EpsilonGreedy(0.0)
    >>> explore(np.array([[1.0, 2.0], [4.0, 3.0]]), np.random.default_rng(0))
    array([1, 0])

    Reference:
        Sutton & Barto, 2018, "Reinforcement Learning", section 2.2.
    """

    def __init__(self, epsilon: Schedule) -> None:
        self.epsilon = epsilon
        super().__init__("epsilon", epsilon)

    def check(self, value: float) -> None:
        """Raises a `ValueError` if epsilon is outside [0, 1]."""
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"`epsilon` must be in [0, 1]. Received: epsilon={value}")

    def __call__(self, q_values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns `[E]` int64 actions for `[E, A]` action values."""
        actions = greedy_actions(q_values)
        explores = rng.random(len(actions)) < self.value
        if np.count_nonzero(explores):
            actions[explores] = random_actions(q_values[explores], rng)
        return actions


class Boltzmann(ScheduledExploration):
    """Draws each action with a probability that grows with its value.

    ```
    p(a) = exp(Q(a) / temperature) / sum_b exp(Q(b) / temperature)
    ```

    Args:
        temperature: Float above 0, in units of return, or a callable of the count of environment
            steps. It is read once per execution.

    Raises:
        ValueError: If the temperature is not above 0, here or when the schedule is read.

    Reference:
        Sutton & Barto, 2018, "Reinforcement Learning", section 2.8.
    """

    def __init__(self, temperature: Schedule) -> None:
        self.temperature = temperature
        super().__init__("temperature", temperature)

    def check(self, value: float) -> None:
        """Raises a `ValueError` if the temperature is not above 0 and finite."""
        if not 0.0 < value < np.inf:
            raise ValueError(
                f"`temperature` must be above 0 and finite. Received: temperature={value}"
            )

    def __call__(self, q_values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns `[E]` int64 actions for `[E, A]` action values."""
        # The Gumbel-max trick: the argmax of perturbed logits is a draw from their softmax.
        return greedy_actions(q_values / self.value + rng.gumbel(size=q_values.shape))


def read_schedule(schedule: Schedule, env_steps: int, episodes: int) -> float:
    """Returns a schedule's value as a float; the schedule's `unit` says which count it takes."""
    if not callable(schedule):
        return float(schedule)
    unit: Any = getattr(schedule, "unit", "steps")
    return float(schedule(episodes if unit == "episodes" else env_steps))
