"""`Collector`: steps environments and fills a replay buffer, in NumPy, with no Keras in it."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keras_dqn.acting.environment_stepper import EnvironmentStepper, Step
from keras_dqn.acting.episode_statistics import EpisodeStatistics
from keras_dqn.acting.exploration import Exploration
from keras_dqn.arguments import check_integer, check_seed, check_type
from keras_dqn.replay.protocols import Replay
from keras_dqn.spaces.env_spaces import Environment


class ActsByValues(Protocol):
    """What a collector asks of a policy; a `Policy` is one."""

    def action_values(self, observation: Any) -> NDArray:
        """Returns action values `[E, A]` for observations `[E, ...]`."""


class Collector:
    """Steps an environment with a policy and exploration, and adds the transitions to a buffer.

    `CollectTransitions` calls it from `fit`; a plain loop or another process can as well:

    ```
    collector = Collector(env, replay, exploration=EpsilonGreedy(0.1), seed=0)
    collector.warm_up(1_000)
    while training:
        policy.refresh()
        collector.collect(policy, num_steps=64)
    ```

    Counts of steps are transitions over all environments; the row with which a vector environment
    resets itself does not count. Environments step together: what `num_steps` leaves over is credit
    for the next call.

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv` of any autoreset mode, `Discrete` actions.
        replay: `ReplayBuffer` of as many environments.
        exploration: `EpsilonGreedy`, `Boltzmann`, `Greedy` or another `Exploration`. Its schedule
            is read once per call of `collect`.
        seed: Int or None, of the first reset and of all draws of actions. Defaults to `None`.
        owner: String, who collects, for errors. Defaults to `"Collector"`.

    Attributes:
        env_steps: Int, transitions taken so far.
        episodes: Int, episodes ended so far.
        statistics: `EpisodeStatistics`.

    Raises:
        ValueError: If `replay` was made for another number of environments or other spaces.
    """

    def __init__(
        self,
        env: Environment,
        replay: Replay,
        *,
        exploration: Exploration,
        seed: int | None = None,
        owner: str = "Collector",
    ) -> None:
        check_type(
            "exploration", exploration, Exploration, "an exploration rule: EpsilonGreedy(0.1)"
        )
        check_type("replay", replay, Replay, "a ReplayBuffer")
        self.seed = check_seed(seed)
        self.stepper = EnvironmentStepper(env, owner)
        _check_fits(self.stepper, replay)
        self.env = env
        self.replay = replay
        self.exploration = exploration
        self.env_steps = 0
        self.episodes = 0
        self.statistics = EpisodeStatistics(self.stepper.num_envs)
        # Not the generator that Gymnasium makes of this seed: actions would follow its draws.
        self._rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
        self._credit = 0.0

    def reset(self) -> None:
        """Starts new episodes in all environments; episodes that run are not counted."""
        self.stepper.reset()
        self.statistics.drop_running()

    def warm_up(self, num_steps: int) -> None:
        """Takes random actions until so many transitions are in the buffer or have been."""
        check_integer("num_steps", num_steps, 0)
        self._begin()
        # Also count steps already taken: a small buffer may have overwritten some.
        missing = num_steps - max(len(self.replay), self.env_steps)
        while missing > 0:
            actions = self.stepper.action_spec.sample(self._rng, self.stepper.num_envs)
            missing -= self._add(self.stepper.step(actions))

    def grant(self, num_steps: float) -> bool:
        """Adds to the steps that `collect` may take; returns whether it would take any."""
        self._credit += num_steps
        return self._credit >= self.stepper.num_envs

    @property
    def granted_steps(self) -> float:
        """Environment steps taken so far, and those that `collect` may take next."""
        return self.env_steps + self._credit

    def collect(self, policy: ActsByValues, num_steps: float = 0, *, exactly: bool = False) -> int:
        """Takes the steps that were granted, these included, and returns how many it took.

        Args:
            policy: `Policy`, or another object with its `action_values`.
            num_steps: Float, further steps. Defaults to `0`.
            exactly: Bool, whether to take the rest too that is smaller than the number of
                environments. All environments step then, and the transitions of those at the end
                that are not wanted are dropped. Defaults to `False`.
        """
        before = self.env_steps
        if self.grant(num_steps) or exactly:
            self._begin()
            self.exploration.update(self.env_steps, self.episodes)
        while self._credit >= self.stepper.num_envs:
            step = self.stepper.step_with(policy, self.exploration, self._rng)
            self._credit -= self._add(step)
        while exactly and self._credit >= 1:
            step = self.stepper.step_with(policy, self.exploration, self._rng)
            wanted = step.stepped & (np.cumsum(step.stepped) <= self._credit)
            self._credit -= self._add(step._replace(stepped=wanted))
        return self.env_steps - before

    @property
    def logs(self) -> dict[str, float]:
        """What there is to tell: means of episodes, the exploration's, and `env_steps`."""
        return {
            **self.statistics.means,
            **self.exploration.logs,
            "env_steps": self.env_steps,
        }

    def get_state(self) -> dict[str, Any]:
        """Returns counters, credit, the generator and the state of all parts.

        What the environment itself holds is not in it.
        """
        return {
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "credit": self._credit,
            "generator": self._rng.bit_generator.state,
            "stepper": self.stepper.get_state(),
            "statistics": self.statistics.get_state(),
            "exploration": self.exploration.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes the state that `get_state` returned."""
        self.env_steps, self.episodes = state["env_steps"], state["episodes"]
        self._credit = state["credit"]
        self._rng.bit_generator.state = state["generator"]
        self.stepper.set_state(state["stepper"])
        self.statistics.set_state(state["statistics"])
        self.exploration.set_state(state["exploration"])

    def _begin(self) -> None:
        if self.stepper.observation is None:  # at first, and after an interrupted step
            self.stepper.reset(self.seed if self.env_steps == 0 else None)
            self.statistics.drop_running()

    def _add(self, step: Step) -> int:
        num_steps = int(np.count_nonzero(step.stepped))
        self.replay.add(
            step.observation,
            step.action,
            step.reward,
            step.terminated,
            step.truncated,
            step.next_observation,
            where=None if num_steps == self.stepper.num_envs else step.stepped,
        )
        self.episodes += self.statistics.add(step)
        self.env_steps += num_steps
        return num_steps


def _check_fits(stepper: EnvironmentStepper, replay: Replay) -> None:
    for name, ours, theirs in (
        ("num_envs", stepper.num_envs, replay.num_envs),
        ("observation_space", stepper.observation_space, replay.observation_space),
        ("action_space", stepper.action_space, replay.action_space),
    ):
        if ours != theirs:
            raise ValueError(
                f"`replay` must be made for the environment: its `{name}` differs. Received: "
                f"env {name}={ours}, replay {name}={theirs}. "
                "`ReplayBuffer.from_env(env, capacity)` makes one that fits."
            )
