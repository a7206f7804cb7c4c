"""`CollectTransitions`: steps environments with the agent while `fit` trains it."""

import math
from typing import Any

import keras
import numpy as np

from keras_dqn.acting.environment_stepper import EnvironmentStepper, Step
from keras_dqn.acting.exploration import Greedy
from keras_dqn.acting.policy import policy_of
from keras_dqn.replay.replay_buffer import ReplayBuffer
from keras_dqn.spaces.env_spaces import Environment, num_envs_of
from keras_dqn.trainers.replay_trainer import ReplayTrainer


class CollectTransitions(keras.callbacks.Callback):
    """Steps an environment before each execution and adds the transitions to a replay buffer.

    Before the first execution it warms the buffer up with uniformly random actions. Counts of
    steps are transitions over all environments; the row with which a vector environment resets
    itself is none. A later `fit` with the same object continues the running episodes.

    It puts into the logs: `env_steps`, all transitions so far; `episode_return` and
    `episode_length`, means over the episodes that ended in this epoch (the last known while none
    has, NaN before the first); and `epsilon` or `temperature`. Callbacks that read them come after
    it in the list.

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv` of any autoreset mode, `Discrete` actions.
        replay: `ReplayBuffer` of as many environments.
        exploration: `EpsilonGreedy`, `Boltzmann` or `Greedy`. Its schedule is read once per
            execution.
        env_steps_per_update: Float above 0. Credit accumulates: 8 environments and one step per
            update make a vector step every 8 updates. Defaults to `1`.
        warmup_steps: Int, how many transitions the buffer holds before training. Defaults to
            `1_000`.
        overlap: Bool, whether to step the environment in a second thread while the compiled program
            runs, instead of before: two cores work at once. What is collected can then be drawn one
            execution later; a seed determines the run as ever. Defaults to `False`.
        seed: Int or None, of the first reset and of all draws of actions. Defaults to `None`.

    Raises:
        ValueError: If `replay` was made for another number of environments or other spaces, or an
            argument is outside its range; when `fit` begins, if `overlap` is asked of a model that
            is no `DQN` or runs on several replicas.

    Reference:
        Mnih et al., 2015, Algorithm 1 and Extended Data Table 1 ("replay start size").
    """

    def __init__(
        self,
        env: Environment,
        replay: ReplayBuffer,
        *,
        exploration: Greedy,
        env_steps_per_update: float = 1,
        warmup_steps: int = 1_000,
        overlap: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self._loop = EnvironmentStepper(env)
        _check_fits(self._loop, replay)
        if not 0 < env_steps_per_update < math.inf:
            raise ValueError(
                f"`env_steps_per_update` must be above 0. Received: {env_steps_per_update=}"
            )
        if not 0 <= warmup_steps <= replay.capacity:
            raise ValueError(
                "`warmup_steps` must be between 0 and the buffer's capacity. Received: "
                f"{warmup_steps=}, capacity={replay.capacity}"
            )
        self.env = env
        self.replay = replay
        self.exploration = exploration
        self.env_steps_per_update = env_steps_per_update
        self.warmup_steps = warmup_steps
        self.overlap = overlap
        self.seed = seed
        self.env_steps = 0
        self.episodes = 0
        # Not the generator that Gymnasium makes of this seed: actions would follow its draws.
        self._rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
        self._credit = 0.0
        self._policy: Any = None
        self._statistics = _EpisodeStatistics(num_envs_of(env))

    def warm_up(self) -> None:
        """Takes random actions until `warmup_steps` transitions are in the buffer or have been."""
        if self._loop.observation is None:
            self._loop.reset(self.seed)
        # Counted too, since a small buffer soon drops some of them for rows at episodes' ends.
        missing = self.warmup_steps - max(len(self.replay), self.env_steps)
        while missing > 0:
            actions = self._rng.integers(self._loop.num_actions, size=self._loop.num_envs)
            missing -= self._step(actions)

    def set_model(self, model: keras.Model) -> None:
        """Takes the model; its policy is kept from one `fit` to the next."""
        if model is not self.model:
            self._policy = None
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Warms the buffer up, unless it is."""
        if self.overlap:
            if not isinstance(self.model, ReplayTrainer):
                raise ValueError(f"`overlap` needs a DQN. Received: model={self.model}")
            self.model.run_alongside(self._collect)
        self.warm_up()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the epoch's means."""
        self._statistics.start_epoch()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Collects what the updates of this execution are entitled to, or is about to."""
        self._credit += self.model.steps_per_execution * self.env_steps_per_update
        if self._credit < self._loop.num_envs:
            return
        self.exploration.update(self.env_steps, self.episodes)
        self._refresh_policy()
        if not self.overlap:
            self._collect()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Puts the counts and the episodes' means into the logs."""
        self._report(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Puts the counts and the episodes' means into the logs."""
        self._report(logs)

    def _report(self, logs: dict | None) -> None:
        if logs is not None:
            logs.update(self._statistics.means)
            logs.update(self.exploration.logs)
            logs["env_steps"] = self.env_steps

    def _refresh_policy(self) -> None:
        if self._policy is None:
            self._policy = policy_of(self.model)
        else:
            self._policy.refresh()

    def _collect(self) -> None:
        while self._credit >= self._loop.num_envs:
            values = self._policy.action_values(self._loop.observation)
            self._loop.check_action_values(values)
            self._credit -= self._step(self.exploration(values, self._rng))

    def _step(self, actions: np.ndarray) -> int:
        step = self._loop.step(actions)
        num_steps = int(np.count_nonzero(step.stepped))
        self.replay.add(
            step.observation,
            step.action + self._loop.action_start,
            step.reward,
            step.terminated,
            step.truncated,
            step.next_observation,
            where=None if num_steps == self._loop.num_envs else step.stepped,
        )
        self.episodes += self._statistics.add(step)
        self.env_steps += num_steps
        return num_steps


class _EpisodeStatistics:
    """Sums rewards per environment and averages over the episodes that ended in the epoch."""

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self.means = {"episode_return": math.nan, "episode_length": math.nan}
        self.start_epoch()

    def start_epoch(self) -> None:
        self._num_ended = 0
        self._sum_of_returns = 0.0
        self._sum_of_lengths = 0

    def add(self, step: Step) -> int:
        """Returns how many episodes have ended with this step."""
        self._returns += step.reward * step.stepped
        self._lengths += step.stepped
        ended = (step.terminated | step.truncated) & step.stepped
        num_ended = int(np.count_nonzero(ended))
        if not num_ended:
            return 0
        self._num_ended += num_ended
        self._sum_of_returns += float(self._returns[ended].sum())
        self._sum_of_lengths += int(self._lengths[ended].sum())
        self._returns[ended] = self._lengths[ended] = 0
        self.means = {
            "episode_return": self._sum_of_returns / self._num_ended,
            "episode_length": self._sum_of_lengths / self._num_ended,
        }
        return num_ended


def _check_fits(loop: EnvironmentStepper, replay: ReplayBuffer) -> None:
    for name in ("num_envs", "observation_space", "action_space"):
        if getattr(loop, name) != getattr(replay, name):
            raise ValueError(
                f"`replay` must be made for the environment: its `{name}` differs. Received: "
                f"env {name}={getattr(loop, name)}, replay {name}={getattr(replay, name)}. "
                "`ReplayBuffer.from_env(env, capacity)` makes one that fits."
            )
