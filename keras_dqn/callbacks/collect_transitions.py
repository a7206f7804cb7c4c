"""`CollectTransitions`: steps environments with the agent while `fit` trains it."""

import math
import warnings
from typing import Any

import keras

from keras_dqn.acting.collector import Collector
from keras_dqn.acting.exploration import Exploration
from keras_dqn.acting.noise import check_explores
from keras_dqn.acting.policy import Policy, policy_of
from keras_dqn.arguments import check_bool, check_integer, check_number
from keras_dqn.replay.protocols import Replay
from keras_dqn.spaces.env_spaces import Environment
from keras_dqn.trainers.replay_trainer import ReplayTrainer
from keras_dqn.trainers.step_hooks import hooks_of
from keras_dqn.trainers.watch import updates_from


class CollectTransitions(keras.callbacks.Callback):
    """Steps an environment before each execution and adds the transitions to a replay buffer.

    Before the first execution it fills the buffer with uniformly random actions (the warm-up).
    Steps are counted as transitions, summed over all environments. A row in which a vector
    environment resets itself does not count. A later `fit` with the same object continues the
    unfinished episodes. So does another process after `set_state`, if the environment is a function
    of `reset(seed)` and the actions: they are taken again.

    A `gym.Env`, and each environment of a Sync- or AsyncVectorEnv in mode DISABLED, gets a new seed
    at each reset. Other vector environments reset themselves without a seed. They are reset with a
    seed when 50,000 environment steps were taken since the last time. This cuts the running
    episodes: they do not count in `episode_return`, and the buffer stores their ends as truncated.

    It adds to the logs: `env_steps`, all transitions so far; `episode_return` and `episode_length`,
    means over the episodes that ended in this epoch; and `epsilon` or `temperature`. If no episode
    ended in this epoch, the means of an earlier epoch stay. Before the first end of an episode the
    logs do not have them. Callbacks that read these logs must come after this one in the list.

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv` with any autoreset mode and `Discrete` actions.
        replay: `ReplayBuffer` for the same number of environments.
        exploration: `EpsilonGreedy`, `NoisyGreedy` or another rule. Its schedule is read once per
            execution.
        env_steps_per_update: Float above 0, environment steps per update. A rest is kept as credit:
            8 environments with one step per update are stepped every 8 updates. Defaults to `1`.
        warmup_steps: Int, transitions in the buffer before training; random actions add those that
            are missing. Defaults to `1_000`.
        max_env_steps: Int or None, environment steps after which training ends. The number is
            exact, includes the warm-up, and can be reached in the middle of an epoch. The updates
            that belong to these steps are still made. The last step of a vector environment keeps
            only the transitions up to this number. `epochs` is then an upper limit. Defaults to
            `None`, no limit.
        overlap: Bool, whether a second thread steps the environment while the compiled program
            runs, instead of before it. Two cores then work at the same time. New transitions can be
            drawn one execution later. A seed still determines the run. Defaults to `False`.
        seed: Int or None. It determines the seeds of all resets and all random actions. The first
            reset gets this seed itself. Defaults to `None`.

    Raises:
        ValueError: If `replay` was made for another number of environments or other spaces, or an
            argument is outside its range. When `fit` begins: if `overlap` or `max_env_steps` is
            used with a model that is not a `DQN`, if `overlap` is used on several replicas, or if
            `max_env_steps` environment steps were taken before.

    Attributes:
        collector: The `Collector` that steps the environment.

    Reference:
        Mnih et al., 2015, Algorithm 1 and Extended Data Table 1 ("replay start size").
    """

    def __init__(
        self,
        env: Environment,
        replay: Replay,
        *,
        exploration: Exploration,
        env_steps_per_update: float = 1,
        warmup_steps: int = 1_000,
        max_env_steps: int | None = None,
        overlap: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.collector = Collector(
            env, replay, exploration=exploration, seed=seed, owner="CollectTransitions"
        )
        check_number("env_steps_per_update", env_steps_per_update, 0.0, above=True)
        if not 0 <= check_integer("warmup_steps", warmup_steps, None) <= replay.capacity:
            raise ValueError(
                "`warmup_steps` must be between 0 and the buffer's capacity. Received: "
                f"{warmup_steps=}, capacity={replay.capacity}"
            )
        if max_env_steps is not None:
            check_integer("max_env_steps", max_env_steps, warmup_steps + 1)
        self.env = env
        self.replay = replay
        self.exploration = exploration
        self.env_steps_per_update = env_steps_per_update
        self.warmup_steps = warmup_steps
        self.max_env_steps = max_env_steps
        self.overlap = check_bool("overlap", overlap)
        self.seed = seed
        self._policy: Policy | None = None
        self._warned = False
        self._is_last = False

    @property
    def env_steps(self) -> int:
        """Environment steps taken so far, summed over all environments."""
        return self.collector.env_steps

    @property
    def episodes(self) -> int:
        """Episodes finished so far, summed over all environments."""
        return self.collector.episodes

    @property
    def is_finished(self) -> bool:
        """Whether `max_env_steps` leaves no further update."""
        return self._updates_left() < 1

    def warm_up(self) -> None:
        """Takes random actions until `warmup_steps` steps were taken or are in the buffer.

        If the buffer is empty, steps that were taken before do not count.
        """
        self.collector.warm_up(self.warmup_steps)

    def reset(self) -> None:
        """Starts new episodes, for example after your own code has reset the environment."""
        self.collector.reset()

    def set_model(self, model: keras.Model) -> None:
        """Sets the model, and keeps its policy for the next `fit` of the same model."""
        if model is not self.model:
            self._policy = None
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Warms the buffer up, unless this was done before."""
        self._is_last = False
        if isinstance(self.model, ReplayTrainer):
            self._take_part(self.model)
        elif self.overlap or self.max_env_steps is not None:
            name = "overlap" if self.overlap else "max_env_steps"
            raise ValueError(f"`{name}` needs a DQN. Received: model={self.model}")
        check_explores(self.exploration, self.model)
        self.warm_up()

    def _take_part(self, model: ReplayTrainer) -> None:
        hooks = hooks_of(model)
        if any(other is self for other in hooks.collectors):
            raise ValueError("A collector must be among the callbacks once. Received: it is twice")
        if hooks.replay is not None and hooks.replay is not self.replay:
            raise ValueError(
                "`replay` must be the buffer whose dataset `fit` trains on. Received: "
                f"replay={self.replay}, dataset of {hooks.replay}"
            )
        hooks.collectors.append(self)
        if self.overlap:
            model.run_alongside(self._collect)
        num_updates = int(model.update_count.numpy())
        if num_updates and not self.env_steps and not self._warned:
            self._warned = True
            warnings.warn(
                f"The agent was trained for {num_updates} updates, and its collector is new: "
                "exploration and `env_steps` start from the beginning. To continue instead, use "
                "the collector of the earlier `fit`, or restore its state: "
                "`state = old.get_state()`, then `new.set_state(state)`.",
                stacklevel=2,
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts new means over episodes; raises a `ValueError` if no step may be taken."""
        if self.is_finished:
            raise ValueError(
                "`max_env_steps` must allow at least one update after the environment steps that "
                f"were taken before. Received: max_env_steps={self.max_env_steps}, "
                f"env_steps={self.env_steps}"
            )
        self.collector.statistics.start_epoch()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Collects this execution's share of steps, or schedules them with `overlap`."""
        num_updates = self.model.steps_per_execution
        if isinstance(self.model, ReplayTrainer):
            num_updates = updates_from(batch, self)
        num_steps = num_updates * self.env_steps_per_update
        if self.max_env_steps is not None and self._updates_left() <= num_updates:
            self._is_last = True
            num_updates = int(self._updates_left())
            num_steps = self.max_env_steps - self.collector.granted_steps
        if isinstance(self.model, ReplayTrainer):
            hooks_of(self.model).limit_updates(num_updates)
        if self.collector.grant(num_steps) or self._is_last:
            self._refresh_policy()
            if not self.overlap:
                self._collect()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Adds the counts and the means to the logs; ends training at `max_env_steps`."""
        self._report(logs)
        if self._is_last:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the counts and the means to the logs."""
        self._report(logs)

    def get_state(self) -> dict[str, Any]:
        """Returns the state of the `collector`."""
        return self.collector.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned, and repeats the running episodes."""
        self.collector.set_state(state)

    def _updates_left(self) -> float:
        """Returns the number of updates until `max_env_steps`."""
        if self.max_env_steps is None:
            return math.inf
        left = (self.max_env_steps - self.collector.granted_steps) / self.env_steps_per_update
        return int(left + 1e-9)

    def _report(self, logs: dict | None) -> None:
        if logs is not None:
            logs.update(self.collector.logs)

    def _refresh_policy(self) -> None:
        if self._policy is None:
            self._policy = policy_of(self.model)
        else:
            self._policy.refresh()

    def _collect(self) -> None:
        if self._policy is not None:  # it is None until steps were granted
            self.collector.collect(self._policy, exactly=self._is_last)
