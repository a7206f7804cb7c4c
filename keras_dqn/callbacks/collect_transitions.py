"""`CollectTransitions`: steps environments with the agent while `fit` trains it."""

import keras

from keras_dqn.acting.collector import Collector
from keras_dqn.acting.exploration import Exploration
from keras_dqn.acting.stateful_wrappers import stateful_wrappers
from keras_dqn.arguments import check_bool
from keras_dqn.callbacks.collecting import CollectingCallback
from keras_dqn.replay.protocols import Replay
from keras_dqn.spaces.env_spaces import Environment
from keras_dqn.trainers.replay_trainer import ReplayTrainer


class CollectTransitions(CollectingCallback):
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
    `episode_return` is the return that Gymnasium's `RecordEpisodeStatistics` recorded, if it stands
    below wrappers that change the rewards; else the sum of the rewards.

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv` with any autoreset mode and `Discrete` or
            `MultiDiscrete` actions.
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
            runs, instead of before it, and then draws the batches of the next execution. Two cores
            work at the same time. New transitions are drawn one execution later, and priorities are
            one execution older (not with `TrainingCheckpoint(save_freq=...)` of a number). A seed
            still determines the run. Defaults to `False`.
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
        collector = Collector(
            env, replay, exploration=exploration, seed=seed, owner="CollectTransitions"
        )
        super().__init__(
            collector, replay, [exploration], env_steps_per_update, warmup_steps, max_env_steps
        )
        self.env = env
        self.exploration = exploration
        self.overlap = self._draws_ahead = check_bool("overlap", overlap)
        self.seed = seed

    @property
    def why_not_repeatable(self) -> str:
        """Why a run that goes on after a restart is not repeated exactly; empty if it is."""
        names = stateful_wrappers(self.env)
        if not names:
            return ""
        return f"The state of {', '.join(names)} is not in a checkpoint: it begins anew"

    def _refuse_foreign(self, model: keras.Model) -> None:
        if self.overlap:
            raise ValueError(f"`overlap` needs a DQN. Received: model={model}")
        super()._refuse_foreign(model)

    def _take_part(self, model: ReplayTrainer) -> None:
        super()._take_part(model)
        if self.overlap:
            model.run_alongside(self._collect_alongside)

    def _collect(self) -> None:
        if not self.overlap:
            super()._collect()

    def _collect_alongside(self) -> None:
        if self._policy is not None:  # it is None until steps were granted
            super()._collect()
