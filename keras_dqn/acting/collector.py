"""`Collector`: steps environments and fills a replay buffer, in NumPy, without Keras."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keras_dqn.acting.environment_stepper import EnvironmentStepper, Step
from keras_dqn.acting.episode_record import EpisodeRecord
from keras_dqn.acting.episode_statistics import EpisodeStatistics
from keras_dqn.acting.exploration import Exploration
from keras_dqn.arguments import check_integer, check_seed, check_type
from keras_dqn.replay.protocols import TakesTransitions
from keras_dqn.spaces.action_mask import check_mask_space
from keras_dqn.spaces.env_spaces import Environment

MAX_RECORDED_STEPS = 50_000  # from one seeded reset to the next, where episodes have no seeds


class ActsByValues(Protocol):
    """The protocol of the policies that a collector accepts, such as `Policy`."""

    def action_values(self, observation: Any) -> NDArray:
        """Returns action values `[E, A]` for observations `[E, ...]`."""


class Collector:
    """Steps an environment with a policy and exploration, and adds the transitions to a buffer.

    `CollectTransitions` uses it in `fit`. You can also use it in your own loop or process:

    ```
    collector = Collector(env, replay, exploration=EpsilonGreedy(0.1), seed=0)
    collector.warm_up(1_000)
    while training:
        policy.refresh()
        collector.collect(policy, num_steps=64)
    ```

    Steps are counted as transitions, summed over all environments. A row in which a vector
    environment resets itself does not count. All environments step together. If `num_steps` is no
    multiple of their number, the rest is kept as credit for the next call.

    `set_state` continues the running episodes of a collector in another process: it resets the new
    environment with the same seeds and takes the same actions again. So the environment must be a
    function of `reset(seed)` and the actions. A `gym.Env`, and each environment of a Sync- or
    AsyncVectorEnv in mode DISABLED, gets a new seed at each reset. Other vector environments reset
    themselves without a seed. The collector resets these, with a seed, when it has taken 50,000
    steps since the last time. This cuts the running episodes: they do not count in
    `episode_return`, and the buffer stores their ends as truncated.

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv` with any autoreset mode and `Discrete` or
            `MultiDiscrete` actions.
        replay: `ReplayBuffer` for the same number of environments, or another object with the
            protocol `TakesTransitions`.
        exploration: `EpsilonGreedy`, `Boltzmann`, `Greedy` or another `Exploration`. Its schedule
            is read once per call of `collect`.
        seed: Int or None. It determines the seeds of all resets and all random actions. The first
            reset gets this seed itself. Defaults to `None`.
        action_mask: String, the key of the action mask in Dict observations, for the random actions
            of the warm-up, or None for no mask. Defaults to `None`.
        owner: String, the name of the collector in errors. Defaults to `"Collector"`.

    Attributes:
        env_steps: Int, environment steps taken so far.
        episodes: Int, episodes finished so far.
        statistics: `EpisodeStatistics`.

    Raises:
        ValueError: If `replay` was made for another number of environments or other spaces, or
            `action_mask` is not the key of a mask.
    """

    def __init__(
        self,
        env: Environment,
        replay: TakesTransitions,
        *,
        exploration: Exploration,
        seed: int | None = None,
        action_mask: str | None = None,
        owner: str = "Collector",
    ) -> None:
        check_type(
            "exploration", exploration, Exploration, "an exploration rule: EpsilonGreedy(0.1)"
        )
        check_type("replay", replay, TakesTransitions, "a ReplayBuffer")
        self.seed = check_seed(seed)
        record = EpisodeRecord(env, self.seed)
        self.stepper = EnvironmentStepper(env, owner, record)
        _check_fits(self.stepper, replay)
        self.env = env
        self.replay = replay
        self.exploration = exploration
        if action_mask is not None:
            check_type("action_mask", action_mask, str, "the key of the mask, or None")
            shape = self.stepper.action_spec.values_shape
            check_mask_space(self.stepper.observation_space, action_mask, shape)
        self.action_mask = action_mask
        self.env_steps = 0
        self.episodes = 0
        self.statistics = EpisodeStatistics(self.stepper.num_envs)
        # Gymnasium makes a generator from the same seed. This one must differ from it, or the
        # actions would depend on the environment's draws.
        self._rng = np.random.default_rng(np.random.SeedSequence(record.entropy, spawn_key=(1,)))
        self._credit = 0.0
        self._cuts = not record.by_episode
        self._reset_at = 0  # environment steps before the last reset of all environments

    def reset(self) -> None:
        """Starts new episodes in all environments; unfinished episodes are not counted."""
        self.stepper.reset()
        self.statistics.drop_running()
        self._reset_at = self.env_steps

    def warm_up(self, num_steps: int) -> None:
        """Takes random actions until `num_steps` transitions were collected or are in the buffer.

        Args:
            num_steps: Int, environment steps. Those taken before count too, unless the buffer is
                empty.
        """
        check_integer("num_steps", num_steps, 0)
        # Also count steps already taken: a small buffer may have overwritten some. An empty buffer
        # holds none of them: it was not saved with the collector.
        missing = num_steps - (max(len(self.replay), self.env_steps) if len(self.replay) else 0)
        while missing > 0:
            missing -= self._step_at_random()

    def collect_at_random(self, num_steps: float) -> int:
        """Takes uniformly random actions as `collect` takes those of a policy."""
        before = self.env_steps
        self.grant(num_steps)
        while self._credit >= self.stepper.num_envs:
            self._credit -= self._step_at_random()
        return self.env_steps - before

    def grant(self, num_steps: float) -> bool:
        """Adds environment steps that `collect` may take, and returns whether it would take any."""
        self._credit += num_steps
        return self._credit >= self.stepper.num_envs

    @property
    def granted_steps(self) -> float:
        """Environment steps taken so far, plus those that `collect` may take next."""
        return self.env_steps + self._credit

    def collect(
        self,
        policy: ActsByValues,
        num_steps: float = 0,
        *,
        exactly: bool = False,
        counts: tuple[int, int] | None = None,
    ) -> int:
        """Takes `num_steps` and all steps granted before, and returns how many it took.

        Args:
            policy: `Policy`, or another object with the same method `action_values`.
            num_steps: Float, environment steps to add to the granted ones. Defaults to `0`.
            exactly: Bool, whether to also take a rest that is smaller than the number of
                environments. All environments then step, and only the transitions of the first
                ones are kept. Defaults to `False`.
            counts: Environment steps and episodes at which the exploration's schedule is read,
                if several collectors share it. Defaults to `None`, those of this collector.
        """
        before = self.env_steps
        if self.grant(num_steps) or exactly:
            self.exploration.update(*(counts or (self.env_steps, self.episodes)))
        while self._credit >= self.stepper.num_envs:
            self._begin_if_needed()
            step = self.stepper.step_with(policy, self.exploration, self._rng)
            self._credit -= self._add(step)
        while exactly and self._credit >= 1:
            self._begin_if_needed()
            step = self.stepper.step_with(policy, self.exploration, self._rng)
            wanted = step.stepped & (np.cumsum(step.stepped) <= self._credit)
            self._credit -= self._add(step._replace(stepped=wanted))
        return self.env_steps - before

    @property
    def logs(self) -> dict[str, float]:
        """The logs: means over episodes, the logs of the exploration, and `env_steps`."""
        return {
            **self.statistics.means,
            **self.exploration.logs,
            "env_steps": self.env_steps,
        }

    def get_state(self) -> dict[str, Any]:
        """Returns the counters, the credit, the random generator and the state of all parts.

        Of the environment it has the seeds of its resets and the actions since then.
        """
        return {
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "credit": self._credit,
            "reset_at": self._reset_at,
            "generator": self._rng.bit_generator.state,
            "stepper": self.stepper.get_state(),
            "statistics": self.statistics.get_state(),
            "exploration": self.exploration.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned, and repeats the running episodes.

        If the environment does not come to the saved observation, a warning says so. The running
        episodes are then cut, and the next step begins new ones.
        """
        self.env_steps, self.episodes = state["env_steps"], state["episodes"]
        self._credit, self._reset_at = state["credit"], state["reset_at"]
        self._rng.bit_generator.state = state["generator"]
        self.stepper.set_state(state["stepper"])
        self.statistics.set_state(state["statistics"])
        self.exploration.set_state(state["exploration"])

    def _begin_if_needed(self) -> None:
        # At the start, after an interrupted step, or because the record becomes long.
        if self.stepper.observation is None or (
            self._cuts and self.env_steps - self._reset_at >= MAX_RECORDED_STEPS
        ):
            self.reset()

    def _step_at_random(self) -> int:
        self._begin_if_needed()
        return self._add(self.stepper.step_at_random(self._rng, self.action_mask))

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


def _check_fits(stepper: EnvironmentStepper, replay: TakesTransitions) -> None:
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
