"""Exploration on the host: `[E, A]` NumPy action values in, `[E]` 0-based actions out.

The value -inf marks an action that is forbidden; no rule takes it while another is allowed. With D
branches, values are `[E, D, A]` and actions `[E, D]`; each environment tosses one coin.
A collector calls `update` once per execution with its counts, and `__call__` once per vector step
with its own random generator. So one seed determines a run.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.arguments import check_integer, check_number, check_schedule
from keras_dqn.schedules import Schedule
from keras_dqn.spaces.action_spec import greedy_actions, random_actions
from keras_dqn.stateful import Stateful


class Exploration:
    """A rule that chooses actions by their values, and may follow a schedule.

    Attributes:
        logs: Dict of names and numbers that a collector puts into the logs of `fit`.
        noisy: Bool, whether the values that it gets have the noise of the network's layers.
    """

    noisy = False

    def __init__(self) -> None:
        self.logs: dict[str, float] = {}

    def reset(self) -> None:
        """Forgets what goes on from step to step. An evaluation begins with it."""

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


class NoisyGreedy(Greedy):
    """Takes the action with the highest value under the noise of the network's `NoisyDense` layers.

    The noise is drawn at each step, and for each environment of a vector environment, from the
    collector's generator. Its size is learned, so there is no schedule.

    Reference:
        Fortunato et al., 2018, "Noisy networks for exploration", section 3.1.
    """

    noisy = True


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


class EpsilonZGreedy(EpsilonGreedy):
    """Repeats a random action for a random number of steps, else takes the greedy action.

    With probability epsilon an environment draws an action and a duration n, and takes this action
    for n steps. It crosses distances that single random steps do not. Durations are drawn from a
    zeta distribution, p(n) proportional to n**-mu. They do not end with the episode. Where an
    action mask forbids the action, another one is drawn for the steps that are left.

    Args:
        epsilon: Float in [0, 1], or a callable of the count of environment steps. It is the
            probability to begin a random action, so the share of random steps is larger: 0.05 gives
            about a quarter with the default `mu` and `max_duration`.
        mu: Float above 1, the exponent. Defaults to `2.0`, as in the paper.
        max_duration: Int, environment steps, the longest duration. Defaults to `10_000`, as in the
            paper.

    Raises:
        ValueError: If an argument is outside its range.

    Reference:
        Dabney et al., 2021, "Temporally-extended epsilon-greedy exploration", Algorithm 1.
    """

    def __init__(self, epsilon: Schedule, *, mu: float = 2.0, max_duration: int = 10_000) -> None:
        super().__init__(epsilon)
        self.mu = check_number("mu", mu, 1.0, above=True)
        self.max_duration = check_integer("max_duration", max_duration)
        self.reset()

    def reset(self) -> None:
        """Ends the random actions that go on."""
        self._action = np.zeros(0, np.int64)
        self._steps_left = np.zeros(0, np.int64)

    def __call__(self, q_values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns `[E]` int64 actions for `[E, A]` action values."""
        num_envs, shape = len(q_values), q_values.shape[:-1]
        if self._action.shape != shape:
            self._action, self._steps_left = np.zeros(shape, np.int64), np.zeros(num_envs, np.int64)
        self._avoid_forbidden(q_values, rng)
        begins = (self._steps_left == 0) & (rng.random(num_envs) < self.value)
        if begins.any():
            self._action[begins] = random_actions(q_values[begins], rng)
            durations = rng.zipf(self.mu, np.count_nonzero(begins))
            self._steps_left[begins] = np.minimum(durations, self.max_duration)
        random = self._steps_left > 0
        self._steps_left[random] -= 1
        actions = greedy_actions(q_values)
        actions[random] = self._action[random]
        return actions

    def _avoid_forbidden(self, q_values: np.ndarray, rng: np.random.Generator) -> None:
        """Draws another action where the repeated one is forbidden now."""
        if not (q_values == -np.inf).any():  # an agent without a mask pays for this alone
            return
        value = np.take_along_axis(q_values, self._action[..., None], axis=-1)
        forbidden = (value == -np.inf).reshape(len(q_values), -1).any(axis=1)
        blocked = (self._steps_left > 0) & forbidden
        if blocked.any():
            self._action[blocked] = random_actions(q_values[blocked], rng)

    def get_state(self) -> dict[str, Any]:
        """Returns the last value of the schedule, and the actions that still go on."""
        running = {"action": self._action.copy(), "steps_left": self._steps_left.copy()}
        return {**super().get_state(), **running}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
        super().set_state(state)
        self._action = np.array(state["action"], np.int64)
        self._steps_left = np.array(state["steps_left"], np.int64)


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


def draw_noise(num_envs: int, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns one draw of noise for each environment, `[num_envs, size]` float32."""
    normal = rng.standard_normal((num_envs, size), np.float32)
    return np.sign(normal) * np.sqrt(np.abs(normal))


def read_schedule(schedule: Schedule, env_steps: int, episodes: int) -> float:
    """Returns a schedule's value as a float; the schedule's `unit` says which count it takes."""
    if not callable(schedule):
        return float(schedule)
    unit: Any = getattr(schedule, "unit", "steps")
    return float(schedule(episodes if unit == "episodes" else env_steps))
