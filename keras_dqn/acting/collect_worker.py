"""`CollectWorker`: collects in a process of its own, which needs neither Keras nor TensorFlow."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium as gym

from keras_dqn.acting.collector import Collector
from keras_dqn.acting.episode_statistics import EndedEpisodes
from keras_dqn.acting.exploration import Exploration
from keras_dqn.replay.block_recorder import BlockRecorder
from keras_dqn.replay.blocks import Block
from keras_dqn.spaces.env_spaces import Environment


class RingSpec(NamedTuple):
    """What the rings are like that a worker owns in a replay buffer.

    Attributes:
        observation_space: Gymnasium space of one environment.
        action_space: The same for actions.
        num_envs: Int, environments of the worker, E.
        frame_stack: Int or None, as in `ReplayBuffer`.
    """

    observation_space: gym.Space
    action_space: gym.Space
    num_envs: int
    frame_stack: int | None

    @classmethod
    def of(cls, replay: Any, num_envs: int) -> "RingSpec":
        """Returns the spec of so many rings of a `ReplayBuffer`."""
        return cls(replay.observation_space, replay.action_space, num_envs, replay.frame_stack)


class WorkerSettings(NamedTuple):
    """What a worker is made with.

    Attributes:
        make_env: Function of no arguments that returns a `gym.Env` or a `gym.vector.VectorEnv`.
        exploration: The worker's exploration rule.
        rings: `RingSpec`.
        block_size: Int, the most environment steps of an order.
        n_step: Int, the longest returns for which it can compute initial TD errors.
        seed: Int, of the worker's resets and random actions.
    """

    make_env: Callable[[], Environment]
    exploration: Exploration
    rings: RingSpec
    block_size: int
    n_step: int
    seed: int


class Order(NamedTuple):
    """What a worker shall do next.

    Attributes:
        num_steps: Int, environment steps to take, summed over the worker's environments. A rest
            that is smaller than their number is kept for the next order.
        at_random: Bool, whether all actions are uniformly random.
        exactly: Bool, whether to take such a rest too.
        env_steps: Int, environment steps of all workers so far, for the exploration's schedule.
        episodes: Int, episodes of all workers so far.
        rating: `(gamma, n_step)` if the block shall hold initial TD errors, else None.
        action_mask: String, the key of the action mask in observations, or None.
    """

    num_steps: int
    at_random: bool = False
    exactly: bool = False
    env_steps: int = 0
    episodes: int = 0
    rating: tuple[float, int] | None = None
    action_mask: str | None = None


class Collected(NamedTuple):
    """What a worker has done.

    Attributes:
        block: The `Block` of the rows.
        num_steps: Int, environment steps taken.
        ended: `EndedEpisodes`.
        logs: Dict, the logs of the exploration rule.
        warnings: List of the texts of new warnings.
    """

    block: Block
    num_steps: int
    ended: EndedEpisodes
    logs: dict[str, float]
    warnings: list[str]


class CollectWorker:
    """Steps environments with a policy and exploration, and gives blocks of rows.

    Args:
        settings: `WorkerSettings`.
        state: Dict that `get_state` of an earlier worker returned, or None. Defaults to `None`.

    Raises:
        ValueError: If the environment has other spaces, or another number of environments.
    """

    def __init__(self, settings: WorkerSettings, state: dict[str, Any] | None = None) -> None:
        self._warned: dict[str, None] = {}  # texts, in order
        self._num_told = 0
        with self._warnings_kept():
            self._begin(settings, state)

    def _begin(self, settings: WorkerSettings, state: dict[str, Any] | None) -> None:
        self._recorder = BlockRecorder(
            *settings.rings[:2],
            num_envs=settings.rings.num_envs,
            frame_stack=settings.rings.frame_stack,
            max_steps=settings.block_size + settings.rings.num_envs,  # with the rest of an order
            n_step=settings.n_step,
            resumes=state is not None,
        )
        self._collector = Collector(
            settings.make_env(),
            self._recorder,
            exploration=settings.exploration,
            seed=settings.seed,
            owner="CollectWorker",
        )
        self._policy: Any = None
        if state is not None:
            self._collector.set_state(state)

    def set_policy(self, policy: Any) -> None:
        """Uses a `HostPolicy` or `Policy` from now on."""
        self._policy = policy

    def collect(self, order: Order, weights: list | None = None) -> Collected:
        """Takes the steps of an order.

        Args:
            order: `Order`.
            weights: List of arrays, new weights of the policy; None keeps the old ones. Defaults
                to `None`.
        """
        if weights is not None:
            self._policy.set_weights(weights)
        collector = self._collector
        collector.statistics.start_epoch()
        collector.action_mask = order.action_mask
        with self._warnings_kept():
            if order.at_random:
                num_steps = collector.collect_at_random(order.num_steps)
            else:
                counts = (order.env_steps, order.episodes)
                num_steps = collector.collect(
                    self._policy, order.num_steps, exactly=order.exactly, counts=counts
                )
            block = self._recorder.take_block(*self._rating(order))
        new, self._num_told = list(self._warned)[self._num_told :], len(self._warned)
        ended, logs = collector.statistics.ended, dict(collector.exploration.logs)
        return Collected(block, num_steps, ended, logs, new)

    @contextmanager
    def _warnings_kept(self) -> Iterator[None]:
        """Keeps warnings for the process that trains, each text once."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        self._warned.update(dict.fromkeys(str(warning.message) for warning in caught))

    def _rating(self, order: Order) -> tuple:
        if order.rating is None or self._policy is None:
            return ()
        gamma, self._recorder.n_step = order.rating  # at most that of the settings
        return (self._policy.action_values, gamma)

    def get_state(self) -> dict[str, Any]:
        """Returns the collector's state: counters, generator, seeds and actions of episodes."""
        return self._collector.get_state()
