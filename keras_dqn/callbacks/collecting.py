"""`CollectingCallback`: collects before each execution; a subclass says where."""

import math
import warnings
from typing import Any, Protocol

import keras

from keras_dqn.acting.exploration import Exploration
from keras_dqn.acting.noise import check_explores
from keras_dqn.acting.policy import Policy, policy_of
from keras_dqn.arguments import check_integer, check_number, check_type
from keras_dqn.replay.protocols import Replay
from keras_dqn.trainers.replay_trainer import ReplayTrainer
from keras_dqn.trainers.step_hooks import hooks_of
from keras_dqn.trainers.watch import updates_from


class Collects(Protocol):
    """What a callback needs of a collector, such as `Collector`."""

    env_steps: int
    episodes: int
    statistics: Any
    action_mask: str | None

    def warm_up(self, num_steps: int) -> None:
        """Takes random actions until `num_steps` transitions were collected."""

    def reset(self) -> None:
        """Starts new episodes in all environments."""

    def grant(self, num_steps: float) -> bool:
        """Adds environment steps that `collect` may take, and returns whether it would take any."""

    @property
    def granted_steps(self) -> float:
        """Environment steps taken so far, plus those that `collect` may take next."""

    def collect(self, policy: Any, num_steps: float = 0, *, exactly: bool = False) -> int:
        """Takes `num_steps` and all steps granted before, and returns how many it took."""

    @property
    def logs(self) -> dict[str, float]:
        """The logs for `fit`."""

    def get_state(self) -> dict[str, Any]:
        """Returns the state."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""


class CollectingCallback(keras.callbacks.Callback):
    """Lets a collector take its share of environment steps before each execution.

    Args:
        collector: A `Collector`, or another object with its methods.
        replay: The buffer that the collector fills.
        explorations: List of the exploration rules of the collector.
        env_steps_per_update: Float above 0, environment steps per update.
        warmup_steps: Int, transitions in the buffer before training.
        max_env_steps: Int or None, environment steps after which training ends.

    Raises:
        ValueError: If an argument is outside its range.
    """

    collector: Any
    _draws_ahead = False

    def __init__(
        self,
        collector: Collects,
        replay: Replay,
        explorations: list[Exploration],
        env_steps_per_update: float,
        warmup_steps: int,
        max_env_steps: int | None,
    ) -> None:
        super().__init__()
        check_type("replay", replay, Replay, "a ReplayBuffer")
        check_number("env_steps_per_update", env_steps_per_update, 0.0, above=True)
        if not 0 <= check_integer("warmup_steps", warmup_steps, None) <= replay.capacity:
            raise ValueError(
                "`warmup_steps` must be between 0 and the buffer's capacity. Received: "
                f"{warmup_steps=}, capacity={replay.capacity}"
            )
        if max_env_steps is not None:
            check_integer("max_env_steps", max_env_steps, warmup_steps + 1)
        self.collector = collector
        self.replay = replay
        self.env_steps_per_update = env_steps_per_update
        self.warmup_steps = warmup_steps
        self.max_env_steps = max_env_steps
        self._explorations = explorations
        self._policy: Policy | None = None
        self._warned = False
        self._is_last = False

    @property
    def why_not_repeatable(self) -> str:
        """Why a run that goes on after a restart is not repeated exactly; empty if it is."""
        return ""

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

        If the buffer is empty, steps that were taken before do not count. `fit` calls it. Before
        `fit`, an agent with an action mask must be set by `set_model(agent)`.
        """
        self.collector.warm_up(self.warmup_steps)

    def reset(self) -> None:
        """Starts new episodes, for example after your own code has reset the environment."""
        self.collector.reset()

    def set_model(self, model: keras.Model) -> None:
        """Sets the model, and keeps its policy for the next `fit` of the same model."""
        if model is not self.model:
            self._policy = None
        self.collector.action_mask = getattr(model, "action_mask", None)
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Warms the buffer up, unless this was done before."""
        self._is_last = False
        if isinstance(self.model, ReplayTrainer):
            self._take_part(self.model)
        else:
            self._refuse_foreign(self.model)
        for exploration in self._explorations:
            check_explores(exploration, self.model)
        self.warm_up()

    def _refuse_foreign(self, model: keras.Model) -> None:
        if self.max_env_steps is not None:
            raise ValueError(f"`max_env_steps` needs a DQN. Received: model={model}")

    def _take_part(self, model: ReplayTrainer) -> None:
        hooks = hooks_of(model)
        if any(other is self for other in hooks.collectors):
            raise ValueError("A collector must be among the callbacks once. Received: it is twice")
        if hooks.dataset is not None and hooks.dataset.replay is not self.replay:
            raise ValueError(
                "`replay` must be the buffer whose dataset `fit` trains on. Received: "
                f"replay={self.replay}, dataset of {hooks.dataset.replay}"
            )
        hooks.collectors.append(self)
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
        self._start_means()

    def _start_means(self) -> None:
        self.collector.statistics.start_epoch()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Collects this execution's share of steps."""
        num_updates = self.model.steps_per_execution
        if isinstance(self.model, ReplayTrainer):
            num_updates = updates_from(batch, self)
        num_steps = num_updates * self.env_steps_per_update
        if self.max_env_steps is not None and self._updates_left() <= num_updates:
            self._is_last = True
            num_updates = int(self._updates_left())
            num_steps = self.max_env_steps - self.collector.granted_steps
        due = self.collector.grant(num_steps) or self._is_last
        if isinstance(self.model, ReplayTrainer):
            hooks = hooks_of(self.model)
            hooks.limit_updates(num_updates)
            hooks.num_ahead = 0
            if self._draws_ahead and not self._is_last and len(hooks.collectors) == 1:
                coming = updates_from(batch + num_updates, self)
                hooks.num_ahead = int(min(coming, self._updates_left()))
        if due:
            self._refresh_policy()
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
        self.collector.collect(self._policy, exactly=self._is_last)
