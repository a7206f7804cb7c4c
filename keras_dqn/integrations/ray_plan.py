"""`WorkerPlan`: what the workers of a callback are made of."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_dqn.acting.collect_worker import RingSpec, WorkerSettings
from keras_dqn.acting.exploration import Exploration
from keras_dqn.integrations.ray_cluster import Cluster
from keras_dqn.integrations.ray_policy import SharedPolicy
from keras_dqn.integrations.ray_workers import RayWorkers
from keras_dqn.replay.replay_buffer import ReplayBuffer
from keras_dqn.spaces.env_spaces import Environment

_NUM_SEEDS = 2**31 - 2**16  # as in `EpisodeRecord`


class WorkerPlan:
    """Starts workers that fit a buffer. The arguments are those of `RayCollectTransitions`.

    Attributes:
        num_workers: Int.
        num_envs: Int, environments of one worker.
        block_size: Int, environment steps of an order: whole steps of all these environments.
        entropy: Int, from which the seeds of workers are derived.
        n_step: Int, the longest returns for which workers compute initial priorities.
        generation: Int, how often workers were started anew; it changes their seeds.
    """

    def __init__(
        self,
        make_env: Callable[[], Environment],
        replay: ReplayBuffer,
        explorations: list[Exploration],
        *,
        block_size: int,
        policy_update_freq: int,
        options: dict[str, Any],
        seed: int | None,
    ) -> None:
        self.num_workers = len(explorations)
        self.num_envs = replay.num_envs // self.num_workers
        self.block_size = self.whole_steps(block_size)
        self.entropy: Any = np.random.SeedSequence(seed).entropy
        self.n_step = 1
        self.generation = 0
        self.make_env = make_env
        self._explorations = explorations
        self._rings = RingSpec.of(replay, self.num_envs)
        self._policy_update_freq = policy_update_freq
        self._options = options

    def whole_steps(self, num_steps: float) -> int:
        """Returns the next larger number of steps that all environments of a worker share."""
        return int(-(-num_steps // self.num_envs)) * self.num_envs

    def logs(self) -> list[dict[str, float]]:
        """Returns the logs of the workers' exploration rules before their first block."""
        return [dict(exploration.logs) for exploration in self._explorations]

    def start(self, states: list[dict[str, Any] | None]) -> RayWorkers:
        """Starts workers with the states that earlier ones had, None for a new worker."""
        noisy = any(exploration.noisy for exploration in self._explorations)
        cluster = Cluster()
        policy = SharedPolicy(
            cluster, self._rings, self.num_workers, noisy, self._policy_update_freq
        )
        return RayWorkers(cluster, self._settings_of, self._options, states, policy)

    def _settings_of(self, worker: int, start: int) -> WorkerSettings:
        key = (3, worker, self.generation, start)
        sequence = np.random.SeedSequence(self.entropy, spawn_key=key)
        seed = int(sequence.generate_state(1)[0]) % _NUM_SEEDS
        return WorkerSettings(
            self.make_env,
            self._explorations[worker],
            self._rings,
            self.block_size,
            self.n_step,
            seed,
        )
