"""Exploration on the host: `[E, A]` NumPy action values in, `[E]` 0-based actions out.

A collector calls `update` once per execution with its counts and `__call__` once per vector step
with its own generator, so that one seed determines a run.
"""

from typing import Any

import numpy as np

from keras_dqn.schedules import Schedule


class Greedy:
    """Takes the action of the highest value; ties go to the lowest action."""

    logs: dict[str, float]

    def __init__(self) -> None:
        self.logs = {}

    def update(self, env_steps: int, episodes: int) -> None:
        """Reads the schedule, if there is one, at these counts."""

    def __call__(self, q_values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns `[E]` int64 actions for `[E, A]` action values."""
        return q_values.argmax(axis=-1)


class EpsilonGreedy(Greedy):
    """Takes a uniformly random action with probability epsilon, else the greedy one.

    Each environment of a vector tosses a coin of its own.

    Args:
        epsilon: Float in [0, 1], or a callable of the step count, `LinearSchedule` and
            `ExponentialSchedule` among them. Its value is read once per execution.

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
        self.update(0, 0)

    def update(self, env_steps: int, episodes: int) -> None:
        """Reads epsilon at these counts."""
        value = read_schedule(self.epsilon, env_steps, episodes)
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"`epsilon` must be in [0, 1]. Received: epsilon={value}")
        self.logs = {"epsilon": value}

    def __call__(self, q_values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns `[E]` int64 actions for `[E, A]` action values."""
        actions = q_values.argmax(axis=-1)
        explores = rng.random(len(actions)) < self.logs["epsilon"]
        num_explores = np.count_nonzero(explores)
        if num_explores:
            actions[explores] = rng.integers(q_values.shape[-1], size=num_explores)
        return actions


class Boltzmann(Greedy):
    """Draws each action with a probability that grows with its value.

    ```
    p(a) = exp(Q(a) / temperature) / sum_b exp(Q(b) / temperature)
    ```

    Args:
        temperature: Float above 0, in units of return, or a callable of the step count. Its value
            is read once per execution.

    Raises:
        ValueError: If the temperature is not above 0, here or when the schedule is read.

    Reference:
        Sutton & Barto, 2018, "Reinforcement Learning", section 2.8.
    """

    def __init__(self, temperature: Schedule) -> None:
        self.temperature = temperature
        self.update(0, 0)

    def update(self, env_steps: int, episodes: int) -> None:
        """Reads the temperature at these counts."""
        value = read_schedule(self.temperature, env_steps, episodes)
        if not 0.0 < value < np.inf:
            raise ValueError(
                f"`temperature` must be above 0 and finite. Received: temperature={value}"
            )
        self.logs = {"temperature": value}

    def __call__(self, q_values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns `[E]` int64 actions for `[E, A]` action values."""
        # The Gumbel-max trick: the argmax of perturbed logits is a draw from their softmax.
        logits = q_values / self.logs["temperature"]
        return (logits + rng.gumbel(size=q_values.shape)).argmax(axis=-1)


def read_schedule(schedule: Schedule, env_steps: int, episodes: int) -> float:
    """Returns a schedule's value as a float, at the count that its `unit` names."""
    if not callable(schedule):
        return float(schedule)
    unit: Any = getattr(schedule, "unit", "steps")
    return float(schedule(episodes if unit == "episodes" else env_steps))
