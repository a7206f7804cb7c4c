"""Small exact environments: one with unique observations, one with a known Q*, random ones."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv


class Row(NamedTuple):
    """One transition as plain numbers; `action` is the argument of `env.step`."""

    observation: int
    action: int
    reward: float
    terminated: bool
    truncated: bool
    next_observation: int


class CountingEnv(gym.Env):
    """Observes a counter that never repeats; the reward is 1 + 10 * (0-based action).

    The counter goes up by one at each reset and each step. `rows` holds all transitions.

    Args:
        lengths: Environment steps of each episode, used in turn.
        ends: Ends of the episodes, used in turn: "terminated" or "truncated".
        first: The first observation.
        start: `Discrete.start` of the three actions.
        in_place: Whether all observations are one array, which each step overwrites.
    """

    def __init__(
        self,
        lengths: tuple = (3,),
        ends: tuple = ("terminated",),
        first: int = 0,
        start: int = 0,
        in_place: bool = False,
    ) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(3, start=start)
        self.lengths = lengths
        self.ends = ends
        self.in_place = in_place
        self.counter = first - 1
        self.episode = -1
        self.array = np.zeros(1, np.float32)
        self.rows: list[Row] = []
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.counter += 1
        self.episode += 1
        self.steps = 0
        return self.observe(), {}

    def step(self, action: int) -> tuple:
        assert self.action_space.contains(action), action
        assert self.steps < self.length, "the episode is over"
        before = self.counter
        self.counter += 1
        self.steps += 1
        reward = 1.0 + 10.0 * (int(action) - int(self.action_space.start))
        end = self.ends[self.episode % len(self.ends)] if self.steps == self.length else None
        row = Row(
            before, int(action), reward, end == "terminated", end == "truncated", self.counter
        )
        self.rows.append(row)
        return self.observe(), reward, row.terminated, row.truncated, {}

    @property
    def length(self) -> int:
        return self.lengths[self.episode % len(self.lengths)]

    def observe(self) -> Any:
        if not self.in_place:
            return np.array([self.counter], np.float32)
        self.array[0] = self.counter
        return self.array


class DictCountingEnv(CountingEnv):
    """Observes the counter in two leaves of a nested Dict."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        box = self.observation_space
        self.observation_space = gym.spaces.Dict(
            {"counter": box, "deep": gym.spaces.Dict({"minus": box})}
        )

    def observe(self) -> dict:
        counter = super().observe()
        return {"counter": counter, "deep": {"minus": -counter}}


class TupleCountingEnv(CountingEnv):
    """Observes the counter in a Tuple of two leaves."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        box = self.observation_space
        self.observation_space = gym.spaces.Tuple([box, box])

    def observe(self) -> tuple:
        counter = super().observe()
        return counter, -counter


class DiscreteCountingEnv(CountingEnv):
    """Observes the counter as an element of a Discrete space."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.observation_space = gym.spaces.Discrete(100_000)

    def observe(self) -> int:
        return self.counter


class ChainEnv(gym.Env):
    """A corridor of `length` cells: action 0 stays, action 1 goes right; the goal gives reward 1.

    At a distance of d steps, Q*(s, right) = gamma**(d - 1) and Q*(s, stay) = gamma**d. Observations
    are one-hot. An episode terminates at the goal and is truncated after `time_limit` steps.
    """

    def __init__(self, length: int = 4, time_limit: int = 20) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (length,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.length = length
        self.time_limit = time_limit

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.cell = self.steps = 0
        return self.observe(), {}

    def step(self, action: int) -> tuple:
        self.cell += int(action)
        self.steps += 1
        terminated = self.cell == self.length
        truncated = not terminated and self.steps == self.time_limit
        return self.observe(), float(terminated), terminated, truncated, {}

    def observe(self) -> np.ndarray:
        # After the last cell, the observation is all zeros.
        return np.eye(self.length + 1, self.length, dtype=np.float32)[self.cell]

    def q_star(self, gamma: float) -> np.ndarray:
        """Returns Q* of the cells, `[length, 2]`."""
        to_go = np.arange(self.length, 0, -1)
        return np.stack([gamma**to_go, gamma ** (to_go - 1.0)], axis=1)


class DrawingEnv(gym.Env):
    """Draws its first position, its steps and its ends from its own generator.

    The reward of a step is the new position. An episode is truncated after 12 steps.

    Args:
        start: `Discrete.start` of the three actions.
    """

    def __init__(self, start: int = 0) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(3, start=start)
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.position, self.steps = self.np_random.normal(), 0
        return self.observe(), {}

    def step(self, action: int) -> tuple:
        assert self.action_space.contains(action), action
        self.position += int(action) + self.np_random.normal()
        self.steps += 1
        terminated = bool(self.np_random.random() < 0.1)
        return self.observe(), self.position, terminated, self.steps == 12, {}

    def observe(self) -> np.ndarray:
        return np.array([self.position, self.steps], np.float32)


class SharedGeneratorEnv(VectorEnv):
    """Two environments in mode DISABLED with one generator; an episode ends at random."""

    def __init__(self) -> None:
        self.num_envs = 2
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.single_action_space = gym.spaces.Discrete(3)
        self.seeds: list[Any] = []
        self.state = np.zeros((2, 1), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.seeds.append(seed)
        where = np.ones(2, bool) if options is None else options["reset_mask"]
        self.state[where] = self.np_random.normal(size=(2, 1))[where]
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple:
        self.state += action[:, None] + self.np_random.normal(size=(2, 1))
        terminated = self.np_random.random(2) < 0.1
        return self.state.copy(), self.state[:, 0].copy(), terminated, np.zeros(2, bool), {}


class PayingResets(SyncVectorEnv):
    """Gives reward 100 on rows that reset an environment (NEXT_STEP). These rows are not steps."""

    ended = False

    def step(self, actions: np.ndarray) -> tuple:
        observation, reward, terminated, truncated, info = super().step(actions)
        reward = reward + 100.0 * self.ended
        self.ended = terminated | truncated
        return observation, reward, terminated, truncated, info


def counter_of(observation: Any) -> Any:
    """Returns the counters `[E]` of `[E, ...]` observations of a counting environment."""
    if isinstance(observation, dict):
        counter = counter_of(observation["counter"])
        np.testing.assert_array_equal(counter, -observation["deep"]["minus"][..., 0])
        return counter
    return observation if observation.ndim == 1 else observation[..., 0]


def counting_fns(num_envs: int = 3, cls: type = CountingEnv, **kwargs: Any) -> list:
    """Returns functions that make environments; all their episodes and observations differ."""
    lengths = [(3, 1, 4), (2,), (5, 1)]
    ends = [("truncated", "terminated"), ("terminated",), ("truncated",)]

    def maker(e: int) -> Any:
        return lambda: cls(lengths[e % 3], ends[e % 3], first=1_000 * e, **kwargs)

    return [maker(e) for e in range(num_envs)]


def counting_vector(
    mode: str, num_envs: int = 3, *, vector_cls: type = SyncVectorEnv, copy: bool = True, **kwargs
) -> SyncVectorEnv | AsyncVectorEnv:
    """Returns the environments of `counting_fns` as one vector environment in an autoreset mode."""
    return vector_cls(counting_fns(num_envs, **kwargs), autoreset_mode=mode, copy=copy)


def play_by_hand(env: gym.Env, actions: list[int]) -> list[Row]:
    """Steps one environment, resets it as Gymnasium says, and returns the transitions."""
    rows = []
    observation, _ = env.reset()
    for action in actions:
        before = int(counter_of(_batch(observation))[0])
        observation, reward, terminated, truncated, _ = env.step(action)
        after = int(counter_of(_batch(observation))[0])
        rows.append(Row(before, action, reward, terminated, truncated, after))
        if terminated or truncated:
            observation, _ = env.reset()
    return rows


def _batch(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _batch(value) for key, value in observation.items()}
    return np.array(observation)[None]
