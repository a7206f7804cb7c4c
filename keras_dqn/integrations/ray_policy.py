"""`SharedPolicy`: an agent's policy and weights, in the form in which workers get them."""

import warnings
from typing import Any

import numpy as np

from keras_dqn.acting.collect_worker import RingSpec
from keras_dqn.acting.host_policy import HostPolicy
from keras_dqn.acting.policy import Policy
from keras_dqn.integrations.ray_cluster import Cluster
from keras_dqn.spaces.observation_spec import ObservationSpec


class SharedPolicy:
    """Knows which weights each worker has, and gives it new ones.

    Args:
        cluster: `Cluster`.
        rings: The `RingSpec` of a worker.
        num_workers: Int.
        noisy: Bool, whether a worker's exploration needs noise in the network.
        update_freq: Int, updates after which workers get new weights.

    Attributes:
        sent: What workers were given: whether the policy needs Keras, and its parts, pickled. Empty
            before the first policy.
        version: Int, the number of updates that the last weights had.
    """

    def __init__(
        self, cluster: Cluster, rings: RingSpec, num_workers: int, noisy: bool, update_freq: int
    ) -> None:
        self.sent: list[Any] = []
        self.version = 0
        self._cluster = cluster
        self._rings = rings
        self._noisy = noisy
        self._update_freq = update_freq
        self._policy: Policy | None = None
        self._weights: list[Any] = []  # the parts of the weights of this version
        self._versions: list[int | None] = [None] * num_workers  # that the workers have

    def use(self, policy: Policy, num_updates: int) -> bool:
        """Takes a policy, and returns whether it is a new one that workers must be given."""
        if policy is self._policy:
            return False
        policy.refresh()
        portable = self._portable(policy)
        self.sent = [not isinstance(portable, HostPolicy), *self._cluster.parts_of(portable)]
        self._policy = policy
        self.version = num_updates
        self._versions = [num_updates] * len(self._versions)
        return True

    def weights_for(self, worker: int, num_updates: int) -> list[Any]:
        """Returns the parts of the weights for a worker's next order; none if it has them."""
        assert self._policy is not None
        own = self._versions[worker]
        age = num_updates - self.version  # below 0 if earlier weights were restored
        if own is None or not 0 <= age < self._update_freq:
            self._policy.refresh()
            self._weights = self._cluster.parts_of(self._policy.get_weights())
            self.version = num_updates
        if own == self.version:
            return []
        self._versions[worker] = self.version
        return self._weights

    def forget(self, worker: int) -> None:
        """Notes that a new worker has begun, with the weights of the first version."""
        self._versions[worker] = None

    def _portable(self, policy: Policy) -> Any:
        """Returns what acts in a worker: without Keras, if that is possible."""
        spec, num_envs = ObservationSpec(self._rings.observation_space), self._rings.num_envs
        leaves = [np.zeros((num_envs, *leaf.shape), leaf.dtype) for leaf in spec.leaves]
        try:
            return policy.host_policy(spec.pack(leaves), noisy=self._noisy)
        except NotImplementedError as error:
            warnings.warn(
                "Each worker loads Keras and TensorFlow, about 600 MB, because the network cannot "
                f"act without them. Received: {error}",
                stacklevel=2,
            )
            return policy
