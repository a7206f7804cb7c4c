"""Collects on many processes or machines with Ray, while `fit` trains in this one."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_dqn.acting.exploration import EpsilonGreedy, Exploration
from keras_dqn.acting.policy import policy_of
from keras_dqn.arguments import check_integer, check_number, check_seed, check_type
from keras_dqn.callbacks.collecting import CollectingCallback
from keras_dqn.integrations.ray_cluster import INSTALL_COMMAND
from keras_dqn.integrations.ray_collector import RayCollector
from keras_dqn.integrations.ray_plan import WorkerPlan
from keras_dqn.models.dqn import DQN
from keras_dqn.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from keras_dqn.replay.replay_buffer import ReplayBuffer
from keras_dqn.spaces.env_spaces import Environment
from keras_dqn.trainers.replay_trainer import ReplayTrainer
from keras_dqn.trainers.step_hooks import hooks_of

_REFUSED = {
    "get_if_exists",
    "lifetime",
    "max_concurrency",
    "max_restarts",
    "max_task_retries",
    "name",
}

__all__ = ["INSTALL_COMMAND", "RayCollectTransitions", "ape_x_epsilons"]


def ape_x_epsilons(num_workers: int, *, epsilon: float = 0.4, alpha: float = 7.0) -> list[float]:
    """Returns a constant epsilon for each worker, from many random actions to almost none.

    ```
    epsilon_i = epsilon ** (1 + alpha * i / (N - 1)),  i = 0 ... N - 1
    ```

    Args:
        num_workers: Int, N, at least 1. For one worker it is `epsilon`.
        epsilon: Float in [0, 1]. Defaults to `0.4`.
        alpha: Float, at least 0. Defaults to `7.0`.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
    >>> [round(epsilon, 4) for epsilon in ape_x_epsilons(3)]
    [0.4, 0.0162, 0.0007]

    Reference:
        Horgan et al., 2018, "Distributed prioritized experience replay", section 4.1.
    """
    check_integer("num_workers", num_workers)
    check_number("epsilon", epsilon, 0.0, 1.0)
    check_number("alpha", alpha, 0.0)
    last = max(num_workers - 1, 1)
    return [epsilon ** (1.0 + alpha * i / last) for i in range(num_workers)]


class RayCollectTransitions(CollectingCallback):
    """Collects on worker processes of Ray, in place of `CollectTransitions`.

    ```
    workers, envs = 2, 4
    replay = ReplayBuffer.from_env(make_env(), capacity=50_000, num_envs=workers * envs)
    collect = RayCollectTransitions(make_env, replay, num_workers=workers)
    agent.fit(replay.dataset(64), epochs=50, steps_per_epoch=1_000, callbacks=[collect, update])
    ```

    Each worker has its own environments, exploration and policy, and its own rings of the buffer.
    It takes orders of `block_size` environment steps and sends the rows as one block. `fit` gives
    an order only for steps that the replay ratio grants, at most two at a time to one worker, and
    waits if all workers have two. So neither side runs ahead: while `fit` trains, at most
    `(2 * num_workers + 1) * block_size` granted steps are missing in the buffer.

    Without another cluster, Ray starts on this machine. To use several machines, start Ray on them
    (`ray start`), install the package there, and set `RAY_ADDRESS` or call `ray.init` before.

    A worker needs neither Keras nor TensorFlow, if LiteRT can convert the network or it is a stack
    of Dense layers; else the worker loads both, and a warning says so. A worker that dies is
    replaced, with a warning. Its running episodes are cut in the buffer as truncated; its blocks
    that did not arrive do not count. An error of an environment ends `fit`.

    Blocks arrive in an order of chance: a seed determines what each worker draws, but not the run.

    It adds the logs of `CollectTransitions`, and `policy_lag`: the largest number of updates
    between the weights that chose a block's actions and the block's arrival, in this epoch; and
    `worker_restarts`. `epsilon` is the mean over the workers.

    With a `PrioritizedReplayBuffer`, workers compute the initial priorities: the absolute n-step TD
    errors under their own weights. An agent with a `priority` of its own, such as `CategoricalDQN`
    (a KL divergence), does not use them: new transitions get the largest priority so far.

    Args:
        make_env: Function of no arguments that returns a `gym.Env` or `gym.vector.VectorEnv`. It
            is called in the worker.
        replay: `ReplayBuffer` with `num_envs = num_workers *` the environments of one worker.
        num_workers: Int, at least 1.
        exploration: A rule for all workers, or a list of one rule for each worker. Schedules are
            read at the count of all workers. Defaults to `None`: `EpsilonGreedy` with the constant
            `ape_x_epsilons(num_workers)`.
        env_steps_per_update: As in `CollectTransitions`.
        warmup_steps: As in `CollectTransitions`. Some more steps can be taken.
        max_env_steps: As in `CollectTransitions`.
        block_size: Int, environment steps of an order. Larger blocks cost less per transition,
            smaller ones arrive earlier. Defaults to `32`.
        policy_update_freq: Int, updates after which workers get new weights, with their next order.
            Defaults to `1`, once per execution.
        max_policy_lag: Int or None, updates between the weights of an order and its block, after
            which `fit` waits for the block. Defaults to `None`: four times what workers of equal
            speed have, `policy_update_freq + steps_per_execution + (2 * num_workers + 1) *
            block_size / env_steps_per_update`.
        worker_options: Dict, Ray's options of an actor, such as `{"num_cpus": 1}`. Defaults to
            `None`: a tenth of a CPU, so that more workers than CPUs can start.
        seed: Int or None. It determines the seeds and the random actions of each worker. Defaults
            to `None`.

    Raises:
        ImportError: If Ray is not installed.
        ValueError: If an argument is outside its range, or `replay` does not fit the workers.
        RuntimeError: While `fit` runs: if the cluster is lost, or a worker cannot be started.

    Attributes:
        collector: The `RayCollector` that gives the orders.

    Reference:
        Horgan et al., 2018, "Distributed prioritized experience replay", Algorithms 1 and 2.
    """

    def __init__(
        self,
        make_env: Callable[[], Environment],
        replay: ReplayBuffer,
        *,
        num_workers: int,
        exploration: Exploration | Sequence[Exploration] | None = None,
        env_steps_per_update: float = 1,
        warmup_steps: int = 1_000,
        max_env_steps: int | None = None,
        block_size: int = 32,
        policy_update_freq: int = 1,
        max_policy_lag: int | None = None,
        worker_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        _check_rings(replay, check_integer("num_workers", num_workers))
        if not callable(make_env):
            raise TypeError(
                "`make_env` must be a function that returns an environment, for each worker to "
                f"call. Received: make_env={make_env!r}"
            )
        rules = _rules(exploration, num_workers)
        if max_policy_lag is not None:
            check_integer("max_policy_lag", max_policy_lag)
        if worker_options is not None:
            check_type("worker_options", worker_options, dict, "a dict of Ray's actor options")
            _check_options(worker_options)
        plan = WorkerPlan(
            make_env,
            replay,
            rules,
            block_size=check_integer("block_size", block_size),
            policy_update_freq=check_integer("policy_update_freq", policy_update_freq),
            options={"num_cpus": 0.1, **(worker_options or {})},
            seed=check_seed(seed),
        )
        collector = RayCollector(replay, plan)
        super().__init__(
            collector, replay, rules, env_steps_per_update, warmup_steps, max_env_steps
        )
        self.num_workers = num_workers
        self.policy_update_freq = policy_update_freq
        self.max_policy_lag = max_policy_lag
        self.seed = seed

    @property
    def why_not_repeatable(self) -> str:
        """Why a run that goes on after a restart is not repeated exactly."""
        return "The blocks of `RayCollectTransitions` arrive in an order of chance"

    def close(self) -> None:
        """Ends the workers. A later `fit` starts new ones, which go on with the episodes."""
        self.collector.close()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Waits for the blocks that are under way, so that the buffer has all steps."""
        self.collector.receive_all()

    def _take_part(self, model: ReplayTrainer) -> None:
        super()._take_part(model)
        self.collector.max_policy_lag = self.max_policy_lag or 4 * self._equal_lag(model)
        dataset = hooks_of(model).dataset
        rated = isinstance(self.replay, PrioritizedReplayBuffer) and dataset is not None
        by_td_error = getattr(type(model), "priority", None) is DQN.priority
        self.collector.rate_by((dataset.gamma, dataset.n_step) if rated and by_td_error else None)

    def _refuse_foreign(self, model: keras.Model) -> None:
        if self.max_policy_lag is not None:
            raise ValueError(f"`max_policy_lag` needs a DQN. Received: model={model}")
        super()._refuse_foreign(model)

    def _equal_lag(self, model: ReplayTrainer) -> float:
        under_way = (2 * self.num_workers + 1) * self.collector.plan.block_size
        under_way /= self.env_steps_per_update
        return self.policy_update_freq + model.steps_per_execution + under_way

    def _start_means(self) -> None:
        """Does nothing: blocks can have arrived since the end of the last epoch."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the counts and means to the logs; starts new means, and a new maximum of the lag."""
        super().on_epoch_end(epoch, logs)
        self.collector.statistics.start_epoch()
        self.collector.policy_lag = 0

    def _refresh_policy(self) -> None:
        if self._policy is None:  # the collector refreshes it
            self._policy = policy_of(self.model)
        is_agent = isinstance(self.model, ReplayTrainer)
        count = self.model.update_count if is_agent else self.model.optimizer.iterations
        self.collector.num_updates = int(count.numpy())


def _check_rings(replay: Any, num_workers: int) -> None:
    check_type("replay", replay, ReplayBuffer, "a ReplayBuffer, which can take blocks of rows")
    if replay.num_envs % num_workers:
        raise ValueError(
            "`replay` must have `num_envs = num_workers *` the environments of one worker. "
            f"Received: {num_workers=}, replay num_envs={replay.num_envs}"
        )


def _check_options(options: dict[str, Any]) -> None:
    if refused := sorted(_REFUSED & set(options)):
        raise ValueError(
            "`worker_options` must leave to the workers how often and when they run. Received: "
            f"{refused}"
        )


def _rules(exploration: Any, num_workers: int) -> list[Exploration]:
    if exploration is None:
        return [EpsilonGreedy(epsilon) for epsilon in ape_x_epsilons(num_workers)]
    expected = "an exploration rule, or a list of one for each worker"
    if not isinstance(exploration, (list, tuple)):
        check_type("exploration", exploration, Exploration, expected)
        return [exploration] * num_workers
    for rule in exploration:
        check_type("exploration", rule, Exploration, expected)
    if len(exploration) != num_workers:
        raise ValueError(
            f"`exploration` must be {expected}. Received: {len(exploration)} rules, {num_workers=}"
        )
    return list(exploration)
