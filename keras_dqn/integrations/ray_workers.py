"""`RayWorkers`: processes on Ray that collect; each has at most a few orders at a time."""

import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from keras_dqn.acting.collect_worker import Collected, Order, WorkerSettings
from keras_dqn.acting.policy import Policy
from keras_dqn.integrations import ray_process
from keras_dqn.integrations.ray_cluster import Cluster, ray
from keras_dqn.integrations.ray_policy import SharedPolicy

# A worker must not import this package as usual, but by `ray_process` itself.
ray.cloudpickle.register_pickle_by_value(ray_process)

_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.WorkerCrashedError,
)
MAX_ORDERS = 2  # of one worker at a time: the one it works on, and the next
_MAX_DEATHS = 3  # of one worker in a row, without a block
_PATIENCE = 5.0  # seconds until a look at the cluster, if nothing arrives
_SLOW = 60.0  # seconds without a block until a warning


class Reply(NamedTuple):
    """What a worker has answered.

    Attributes:
        worker: Int, the number of the worker.
        order: The `Order`; None if the worker had died before it got one.
        version: Int, the number of updates that the weights of the policy had.
        collected: `Collected`; None if the worker had died. Then all its orders are lost, and a new
            worker has begun in its place.
    """

    worker: int
    order: Any
    version: int
    collected: Collected | None


class RayWorkers:
    """Starts workers, gives them orders, and replaces those that die.

    Args:
        cluster: `Cluster`.
        settings_of: Function of the number of a worker and the number of its start, from 0, that
            returns its `WorkerSettings`.
        options: Dict, Ray's options of an actor.
        states: List of the workers' states, None for a new one.
        policy: The `SharedPolicy` of the workers.

    Attributes:
        num_restarts: Int, workers that were replaced.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings_of: Callable[[int, int], WorkerSettings],
        options: dict[str, Any],
        states: list[dict[str, Any] | None],
        policy: SharedPolicy,
    ) -> None:
        self.num_restarts = 0
        self._settings_of = settings_of
        self._policy = policy
        self._actor_class: Any = ray.remote(**options)(ray_process.Worker)
        self._cluster = cluster
        self._actors: list[Any] = [None] * len(states)
        self._results: list[deque] = [deque() for _ in states]
        self._starts = [0] * len(states)
        self._deaths = [0] * len(states)
        for worker, state in enumerate(states):
            self._start(worker, state)

    def num_orders(self, worker: int) -> int:
        """Returns the number of orders that a worker has not finished."""
        return sum(order is not None for order, *_ in self._results[worker])

    @property
    def are_lost(self) -> bool:
        """Whether the cluster of the workers is lost."""
        return self._cluster.is_lost

    @property
    def have_orders(self) -> bool:
        """Whether a worker has an order that it has not finished."""
        return any(self.num_orders(worker) for worker in range(len(self._actors)))

    @property
    def oldest_version(self) -> float:
        """The smallest number of updates of the weights for an order; infinite without an order."""
        orders = [part for queue in self._results for part in queue if part[0] is not None]
        versions = [version for order, version, _ in orders if not order.at_random]
        return min(versions, default=math.inf)

    def send(self, worker: int, order: Order, num_updates: int) -> None:
        """Gives a worker an order, with new weights if its own are too old."""
        weights: list[Any] = []
        if not order.at_random:
            weights = self._policy.weights_for(worker, num_updates)
        result = self._actors[worker].collect.remote(order, *weights)
        self._results[worker].append((order, self._policy.version, result))

    def use(self, policy: Policy, num_updates: int) -> None:
        """Gives a policy to all workers, unless they have it."""
        if self._policy.use(policy, num_updates):
            for worker in range(len(self._actors)):
                self._send_policy(worker)

    def receive(self, wait: bool) -> list[Reply]:
        """Returns what has arrived, at most one reply of each worker: that to its oldest order.

        Call `finish` when a reply was used; until then it is returned again.

        Args:
            wait: Bool, whether to wait until something has arrived, if a worker has an order.

        Raises:
            RuntimeError: If the cluster is lost, or a worker dies each time before its first block.
            ray.exceptions.RayTaskError: The error of an environment.
        """
        began = time.monotonic()
        while True:
            self._cluster.check()
            if not self.have_orders:
                return []
            oldest = {queue[0][-1]: worker for worker, queue in enumerate(self._results) if queue}
            ready, _ = ray.wait(list(oldest), num_returns=len(oldest), timeout=0)
            if not ready and wait:
                ready, _ = ray.wait(list(oldest), num_returns=1, timeout=_PATIENCE)
            replies = [self._reply(oldest[result]) for result in ready]
            arrived = [reply for reply in replies if reply is not None]
            if arrived or not (wait or ready):
                return arrived
            if not ready:
                began = self._look_around(began)

    def finish(self, worker: int) -> None:
        """Removes the oldest order of a worker."""
        self._results[worker].popleft()

    def states(self) -> list[dict[str, Any] | None]:
        """Returns the states of the workers, None for one that has died; no order may be left."""
        results = [actor.get_state.remote() for actor in self._actors]
        return [self._state(worker, result) for worker, result in enumerate(results)]

    def process(self, worker: int) -> dict[str, Any]:
        """Returns `pid` of a worker's process, and whether it has loaded `keras`."""
        return ray.get(self._actors[worker].process.remote())

    def stop(self) -> None:
        """Ends the workers."""
        for actor in self._actors if ray.is_initialized() else []:
            ray.kill(actor)
        self._actors = []

    def _start(self, worker: int, state: dict[str, Any] | None) -> None:
        settings = self._settings_of(worker, self._starts[worker])
        self._starts[worker] += 1
        actor = self._actors[worker] = self._actor_class.remote()
        # What is not an order gives no block, but it can fail.
        started = actor.start.remote(ray.cloudpickle.dumps(settings), state)
        self._results[worker].append((None, 0, started))
        self._send_policy(worker)

    def _send_policy(self, worker: int) -> None:
        if not self._policy.sent:
            return
        result = self._actors[worker].set_policy.remote(*self._policy.sent)
        self._results[worker].append((None, 0, result))

    def _reply(self, worker: int) -> Reply | None:
        """Returns the oldest reply of a worker, None if it is no block."""
        order, version, result = self._results[worker][0]
        try:
            collected = ray.get(result)
        except _DEATHS as error:
            self._replace(worker, error)
            return Reply(worker, order, version, None)
        if order is None:
            self.finish(worker)
            return None
        self._deaths[worker] = 0
        return Reply(worker, order, version, collected)

    def _state(self, worker: int, result: Any) -> dict[str, Any] | None:
        try:
            return ray.get(result)
        except _DEATHS as error:
            self._replace(worker, error)
            return None

    def _look_around(self, began: float) -> float:
        """Looks for a reason why nothing arrives; returns when the waiting began, or a warning."""
        self._cluster.check(at_once=True)
        if time.monotonic() - began < _SLOW:
            return began
        warnings.warn(
            f"No worker has sent a block for {_SLOW:.0f} seconds. Received: {len(self._actors)} "
            f"workers, free in the cluster: {ray.available_resources()}",
            stacklevel=2,
        )
        return time.monotonic()

    def _replace(self, worker: int, error: Exception) -> None:
        self._cluster.check(at_once=True)
        (reason, *_) = str(error).splitlines() or [""]
        self._deaths[worker] += 1
        if self._deaths[worker] >= _MAX_DEATHS:
            raise RuntimeError(
                f"A worker has died {_MAX_DEATHS} times in a row before it sent a block. "
                f"Received: worker={worker}, {reason}"
            ) from error
        self.num_restarts += 1
        ray.kill(self._actors[worker])  # if it only does not answer
        self._results[worker].clear()
        self._policy.forget(worker)
        self._start(worker, None)
        warnings.warn(
            "A worker has died, and a new one begins in its place; its running episodes are cut. "
            f"Received: worker={worker}, {reason}",
            stacklevel=2,
        )
