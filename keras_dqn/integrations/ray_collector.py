"""`RayCollector`: keeps the account of the environment steps that workers on Ray take."""

import math
import warnings
from typing import Any

import numpy as np

from keras_dqn.acting.collect_worker import Collected, Order
from keras_dqn.acting.episode_statistics import EpisodeStatistics
from keras_dqn.acting.policy import Policy
from keras_dqn.integrations.ray_plan import WorkerPlan
from keras_dqn.integrations.ray_workers import MAX_ORDERS, RayWorkers, Reply
from keras_dqn.replay.replay_buffer import ReplayBuffer


class RayCollector:
    """Does on worker processes what `Collector` does in this one.

    `collect` gives orders for the steps that were granted, and adds the blocks that have arrived.
    It returns when less than one order is left to give; some granted steps are then under way.

    Args:
        replay: `ReplayBuffer`; workers own equal numbers of its rings.
        plan: The `WorkerPlan` for it.

    Attributes:
        env_steps: Int, environment steps in the blocks that have arrived.
        episodes: Int, episodes that ended in them.
        statistics: `EpisodeStatistics`.
        num_updates: Int, updates of the agent so far; the callback sets it.
        policy_lag: Int, the largest lag of a policy in this epoch.
        max_policy_lag: Float, updates after which `collect` waits for a worker.
        rating: `(gamma, n_step)` if workers compute initial priorities, else None.
        action_mask: String, the key of the action mask in observations, or None.
    """

    def __init__(self, replay: ReplayBuffer, plan: WorkerPlan) -> None:
        self.replay = replay
        self.plan = plan
        self.env_steps = self.episodes = 0
        self.statistics = EpisodeStatistics(replay.num_envs)
        self.num_updates = self.policy_lag = 0
        self.max_policy_lag = math.inf
        self.rating: tuple[float, int] | None = None
        self.action_mask: str | None = None
        self._num_workers, self._block_size = plan.num_workers, plan.block_size
        self._workers: RayWorkers | None = None
        self._states: list[dict[str, Any] | None] = [None] * self._num_workers
        self._num_restarts = 0  # of workers that were ended since
        self._credit = 0.0  # granted steps for which no order was given
        self._ordered = np.zeros(self._num_workers, np.int64)  # steps that have not arrived
        self._num_sent = np.zeros(self._num_workers, np.int64)  # orders, to share them equally
        self._logs = plan.logs()

    @property
    def granted_steps(self) -> float:
        """Environment steps that have arrived, are under way, or may be ordered next."""
        return self.env_steps + self._credit + int(self._ordered.sum())

    def grant(self, num_steps: float) -> bool:
        """Adds environment steps that may be taken; returns True, as blocks can have arrived."""
        self._credit += num_steps
        return True

    @property
    def logs(self) -> dict[str, float]:
        """The logs: means over episodes and over the workers' rules, counts, and the lag."""
        names = dict.fromkeys(name for logs in self._logs for name in logs)
        rules = {n: [logs[n] for logs in self._logs if n in logs] for n in names}
        restarts = 0 if self._workers is None else self._workers.num_restarts
        return {
            **self.statistics.means,
            **{name: float(np.mean(values)) for name, values in rules.items()},
            "env_steps": self.env_steps,
            "policy_lag": self.policy_lag,
            "worker_restarts": self._num_restarts + restarts,
        }

    def warm_up(self, num_steps: int) -> None:
        """Takes random actions until `num_steps` transitions were collected or are in the buffer.

        Some more are taken: orders are whole steps of all environments of a worker.
        """
        while True:
            self.receive_all()
            # An empty buffer holds no steps that were taken before, as in `Collector`.
            done = max(len(self.replay), self.env_steps) if len(self.replay) else 0
            if done >= num_steps:
                return
            self._credit = max(self._credit, num_steps - done)
            while self._credit > 0:
                self._order(at_random=True)
                if self._credit > 0:
                    self._take_arrived(wait=True)

    def collect(self, policy: Policy, num_steps: float = 0, *, exactly: bool = False) -> int:
        """Orders `num_steps` and all steps granted before, and returns how many have arrived.

        Args:
            policy: `Policy`, whose weights are read when an order is given.
            num_steps: Float, environment steps to add to the granted ones. Defaults to `0`.
            exactly: Bool, whether to wait for all granted steps. Defaults to `False`.
        """
        before = self.env_steps
        self._credit += num_steps
        self._running().use(policy, self.num_updates)
        while self._take_arrived(wait=False):  # so that the next orders get new weights
            pass
        self._order()
        while self._credit >= self._block_size or self._is_too_old():
            self._take_arrived(wait=True)
            self._order()
        if not len(self.replay):  # `fit` draws from it next
            self.receive_all()
        if exactly:
            self._take_the_rest()
        return self.env_steps - before

    def receive_all(self) -> None:
        """Waits for all orders that are under way."""
        while self._workers is not None and self._workers.have_orders:
            self._take_arrived(wait=True)

    def _is_too_old(self) -> bool:
        """Whether a worker acts with weights that are too old, so that its block is awaited."""
        return self.num_updates - self._running().oldest_version > self.max_policy_lag

    def _take_the_rest(self) -> None:
        self.receive_all()
        while self.granted_steps - self.env_steps >= 1 - 1e-9:
            # A worker keeps a rest that is smaller than the number of its environments.
            for worker in range(self._num_workers):
                missing = min(int(self._credit + 1e-9), self._block_size)
                if missing or self._ordered[worker]:
                    self._send(worker, missing, exactly=True)
            self.receive_all()

    def _order(self, at_random: bool = False) -> None:
        """Gives orders while there is credit, first to the workers that have the fewest."""
        workers = self._running()
        while self._credit >= (1e-9 if at_random else self._block_size):
            worker = min(
                range(self._num_workers), key=lambda w: (workers.num_orders(w), self._num_sent[w])
            )
            if workers.num_orders(worker) >= MAX_ORDERS:
                return
            num_steps = self._block_size
            if at_random:
                num_steps = min(num_steps, self.plan.whole_steps(self._credit))
            self._send(worker, num_steps, at_random=at_random)

    def _send(
        self, worker: int, num_steps: int, at_random: bool = False, exactly: bool = False
    ) -> None:
        counts = (self.env_steps, self.episodes)
        order = Order(num_steps, at_random, exactly, *counts, self.rating, self.action_mask)
        self._credit -= num_steps
        self._ordered[worker] += num_steps
        self._num_sent[worker] += 1
        self._running().send(worker, order, self.num_updates)

    def _take_arrived(self, wait: bool) -> bool:
        """Adds what has arrived, at most one block of each worker; returns whether any has."""
        workers = self._running()
        try:
            arrived = workers.receive(wait)
        except Exception:  # of an environment, or the cluster is lost
            self._abandon(workers)
            raise
        for reply in arrived:
            if reply.collected is None:
                self._lost(reply.worker)
                continue
            try:
                workers.finish(reply.worker)
                self._add(reply, reply.collected)
            except BaseException:  # Ctrl-C: the next block of the worker does not follow
                self._end_episodes(reply.worker)
                raise
        return bool(arrived)

    def _add(self, reply: Reply, collected: Collected) -> None:
        worker, order = reply.worker, reply.order
        self.env_steps += collected.num_steps
        self._ordered[worker] -= collected.num_steps
        self.episodes += collected.ended.number
        self.statistics.add_ended(collected.ended)
        if not order.at_random:
            self._logs[worker] = collected.logs
            self.policy_lag = max(self.policy_lag, self.num_updates - reply.version)
        if order.exactly:  # the worker has kept no rest
            self._give_back(worker)
        self.replay.add_block(collected.block, worker * self.plan.num_envs)
        for text in collected.warnings:  # last: a filter can make errors of them
            warnings.warn(f"A worker warns: {text}", stacklevel=2)

    def _lost(self, worker: int) -> None:
        """Notes that a new worker has begun in the place of one that died."""
        self._end_episodes(worker)
        self._give_back(worker)

    def _end_episodes(self, worker: int) -> None:
        first = worker * self.plan.num_envs
        self.replay.end_episodes(list(range(first, first + self.plan.num_envs)))

    def _give_back(self, worker: int) -> None:
        self._credit += int(self._ordered[worker])
        self._ordered[worker] = 0

    def _running(self) -> RayWorkers:
        if self._workers is not None and self._workers.are_lost:
            self._abandon(self._workers)
        if self._workers is None:
            self._workers = self.plan.start(self._states)
        return self._workers

    def rate_by(self, rating: tuple[float, int] | None) -> None:
        """Lets workers compute initial priorities by `(gamma, n_step)`, or not."""
        self.rating = rating
        if rating is not None and rating[1] > self.plan.n_step:
            self.close()  # new workers have room for longer windows
            self.plan.n_step = rating[1]

    def reset(self) -> None:
        """Ends the workers; new ones start new episodes."""
        self.close()
        self._forget_episodes()

    def _abandon(self, workers: RayWorkers) -> None:
        self._workers = None
        self._num_restarts += workers.num_restarts
        self.plan.generation += 1
        workers.stop()
        self._forget_episodes()

    def _forget_episodes(self) -> None:
        self._states = [None] * self._num_workers
        for worker in range(self._num_workers):
            self._lost(worker)

    def close(self) -> None:
        """Ends the workers; new ones continue their episodes."""
        if self._workers is not None:
            self._states = self._take_states()
            self._num_restarts += self._workers.num_restarts
            self._workers.stop()
            self._workers = None
            self.plan.generation += 1

    def get_state(self) -> dict[str, Any]:
        """Waits for all orders; returns the counters and the states of the workers."""
        states = self._take_states()
        return {
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "credit": self._credit,
            "ordered": self._ordered.tolist(),
            "num_restarts": self.logs["worker_restarts"],
            "statistics": self.statistics.get_state(),
            "logs": [dict(logs) for logs in self._logs],
            "generation": self.plan.generation,
            "entropy": self.plan.entropy,
            "workers": states,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned; workers repeat the running episodes.

        Raises:
            ValueError: If it is of another number of workers.
        """
        if len(state["workers"]) != self._num_workers:
            raise ValueError(
                f"`num_workers` must be {len(state['workers'])}, as it was when the state was "
                f"saved. Received: num_workers={self._num_workers}"
            )
        if self._workers is not None:
            self._workers.stop()
            self._workers = None
        self.env_steps, self.episodes = state["env_steps"], state["episodes"]
        self._credit, self._num_restarts = state["credit"], state["num_restarts"]
        self.plan.generation, self.plan.entropy = state["generation"] + 1, state["entropy"]
        self._ordered = np.array(state["ordered"], np.int64)
        self.statistics.set_state(state["statistics"])
        self._logs = [dict(logs) for logs in state["logs"]]
        self._states = list(state["workers"])
        for worker, saved in enumerate(self._states):
            if saved is None:  # it had died
                self._give_back(worker)

    def _take_states(self) -> list[dict[str, Any] | None]:
        self.receive_all()
        if self._workers is None:
            return self._states
        states = self._workers.states()
        for worker, state in enumerate(states):
            if state is None:  # it has died since its last block
                self._lost(worker)
        return states
