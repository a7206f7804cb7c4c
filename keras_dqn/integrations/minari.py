"""Reads Minari datasets into a `ReplayBuffer`, and records an agent's episodes as a dataset."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import keras
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from keras_dqn.acting.environment_stepper import EnvironmentStepper, Step
from keras_dqn.acting.episodes import Episodes
from keras_dqn.acting.exploration import Exploration, Greedy
from keras_dqn.acting.observations import leaves_of, with_leaves
from keras_dqn.acting.policy import Policy, policy_of
from keras_dqn.arguments import check_integer, check_seed, check_type
from keras_dqn.replay.replay_buffer import ReplayBuffer
from keras_dqn.spaces.env_spaces import Environment

INSTALL_COMMAND = 'python -m pip install "minari[hdf5]" pillow'
_STEPS_AT_ONCE = 1_000  # that `record` keeps in memory before it writes them

try:
    import minari
    from minari.data_collector import EpisodeBuffer
except ImportError as error:
    raise ImportError(
        f"`keras_dqn.integrations.minari` needs Minari: {INSTALL_COMMAND}. Received: {error}"
    ) from error

__all__ = ["INSTALL_COMMAND", "load", "record"]


def load(
    dataset: Any,
    *,
    capacity: int | None = None,
    buffer_class: type[ReplayBuffer] = ReplayBuffer,
    **kwargs: Any,
) -> ReplayBuffer:
    """Returns a buffer with the transitions of a Minari dataset, for `fit` without environment.

    Episodes are read one after the other, so that no more than one is in memory beside the buffer.
    An episode that did not terminate counts as truncated, also if its data does not say so: the
    value of its final observation is bootstrapped.

    Args:
        dataset: String, the id of a dataset on this machine, or a `minari.MinariDataset`, such as a
            part that `minari.split_dataset` or `filter_episodes` returned.
        capacity: Int or None, rows of the buffer. If the dataset needs more, its last episodes
            stay. Defaults to `None`, as many as it needs.
        buffer_class: `ReplayBuffer` or `PrioritizedReplayBuffer`. Defaults to `ReplayBuffer`.
        **kwargs: Further arguments of the class, such as `seed` or `frame_stack`.

    Raises:
        FileNotFoundError: If no dataset with this id is on this machine.
        TypeError: If an argument has another type.
        ValueError: If the dataset has no episode, its actions are not discrete, an episode goes on
            after its end, or as `ReplayBuffer` says.

    Example:
    >>> replay = load("cartpole/half-trained-v0", seed=0)  # doctest: +SKIP
    >>> agent.fit(replay.dataset(batch_size=64), steps_per_epoch=1_000)  # doctest: +SKIP
    """
    if isinstance(dataset, str):
        dataset = _local(dataset)
    check_type("dataset", dataset, minari.MinariDataset, "the id of a dataset or a MinariDataset")
    if not (isinstance(buffer_class, type) and issubclass(buffer_class, ReplayBuffer)):
        raise TypeError(
            "`buffer_class` must be ReplayBuffer or PrioritizedReplayBuffer. Received: "
            f"{buffer_class=}"
        )
    if "num_envs" in kwargs:
        raise TypeError(
            "`num_envs` must not be given: all episodes go into one ring. Received: "
            f"num_envs={kwargs['num_envs']}"
        )
    if not dataset.total_episodes:
        raise ValueError(f"`dataset` must have an episode. Received: {dataset.id} with none")
    if capacity is None:
        # A final observation and the older frames of a first stack take rows too.
        stack = 1 if kwargs.get("frame_stack") is None else kwargs["frame_stack"]
        rows = dataset.total_episodes * check_integer("frame_stack", stack)
        capacity = dataset.total_steps + rows + 1
    spaces = dataset.observation_space, dataset.action_space
    replay = buffer_class(capacity, *spaces, **kwargs)
    for episode in dataset.iterate_episodes():
        if (episode.terminations | episode.truncations)[:-1].any():
            raise ValueError(
                "`dataset` must have episodes that end with their last step. Received: episode "
                f"{episode.id} of {len(episode.rewards)} steps, with an end before"
            )
        terminated = bool(episode.terminations.any())
        replay.add_episode(episode.observations, episode.actions, episode.rewards, terminated)
    return replay


def record(
    model: keras.Model,
    env: Environment,
    dataset_id: str,
    *,
    episodes: int,
    exploration: Exploration | None = None,
    max_episode_steps: int | None = None,
    seed: int | None = None,
    **metadata: Any,
) -> minari.MinariDataset:
    """Plays whole episodes with a model's actions and writes them as a new Minari dataset.

    Args:
        model: A `DQN`, or any Keras model that maps observations to `[B, A]` action values.
        env: `gym.Env` or `gym.vector.VectorEnv`. In a vector environment, each environment plays
            its share of the episodes, so that short episodes are not preferred.
        dataset_id: String, such as `"cartpole/half-trained-v0"`.
        episodes: Int, at least 1.
        exploration: An exploration rule, such as `EpsilonGreedy(0.3)`. Defaults to `None`, greedy
            actions.
        max_episode_steps: Int or None, environment steps after which an episode is cut, which
            counts as truncated. Defaults to `None`.
        seed: Int or None, of the first reset and the exploration. Defaults to `None`.
        **metadata: Arguments of `minari.create_dataset_from_buffers`, such as `author`,
            `description` or `data_format`. Here images are stored without loss unless
            `jpeg_encoding` is True.

    Returns:
        The `minari.MinariDataset`. Its `recover_environment` works for environments of
        `gymnasium.make`, and of `make_vec` if `make` gives the same observations without wrappers.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If there is a dataset with this id, or an argument is outside its range.
    """
    exploration = Greedy() if exploration is None else exploration
    check_type("exploration", exploration, Exploration, "an exploration rule or None")
    check_integer("episodes", episodes)
    if max_episode_steps is not None:
        check_integer("max_episode_steps", max_episode_steps)
    # Gymnasium makes a generator from the seed itself. This one must differ from it.
    rng = np.random.default_rng(np.random.SeedSequence(check_seed(seed), spawn_key=(1,)))
    policy, stepper = policy_of(model), EnvironmentStepper(env, "record")
    stepper.reset(seed)
    counted = Episodes(stepper.num_envs, episodes, max_episode_steps)
    spaces = {"observation_space": stepper.observation_space, "action_space": stepper.action_space}
    metadata = {
        "env": _made_of(env, stepper.observation_space),
        **spaces,
        "jpeg_encoding": False,
        **metadata,
    }
    dataset = minari.create_dataset_from_buffers(dataset_id, [], **metadata)
    try:
        waiting: list[EpisodeBuffer] = []
        for episode in _episodes(stepper, counted, policy, exploration, rng):
            waiting.append(episode)
            if counted.done or sum(len(each.rewards) for each in waiting) >= _STEPS_AT_ONCE:
                dataset.update_dataset_from_buffer(waiting)
                waiting = []
    except BaseException:
        if not dataset.total_episodes:  # so that the id can be used again
            minari.delete_dataset(dataset_id)
        raise
    return dataset


def _episodes(
    stepper: EnvironmentStepper,
    counted: Episodes,
    policy: Policy,
    exploration: Exploration,
    rng: np.random.Generator,
) -> Iterator[EpisodeBuffer]:
    """Plays the episodes that count; each comes when it ends."""
    steps: list[list[Step]] = [[] for _ in range(stepper.num_envs)]  # of the running episodes
    num_steps = 0
    while not counted.done:
        exploration.update(num_steps, len(counted.returns))
        step = stepper.step_with(policy, exploration, rng)
        num_steps += int(step.stepped.sum())
        for e in np.flatnonzero(step.stepped).tolist():
            steps[e].append(step)
        for e in counted.add(step):
            yield _episode(steps[e], e)
        for e in np.flatnonzero(step.terminated | step.truncated).tolist():
            steps[e] = []
        if counted.wait_for_reset:
            stepper.reset()
            counted.start_anew()
            steps = [[] for _ in steps]


def _local(dataset_id: str) -> minari.MinariDataset:
    try:
        return minari.load_dataset(dataset_id)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "`dataset` must be the id of a dataset on this machine; `minari.download_dataset(id)` "
            f"fetches one. Received: dataset={dataset_id!r}"
        ) from error


def _episode(steps: list[Step], env: int) -> EpisodeBuffer:
    """Returns the episode of one environment. It ends with the last step, also if it was cut."""
    last = steps[-1]
    observations = [step.observation for step in steps] + [last.next_observation]
    leaves = zip(*map(leaves_of, observations), strict=True)
    terminations = np.zeros(len(steps), bool)
    terminations[-1] = last.terminated[env]
    truncations = np.zeros(len(steps), bool)
    truncations[-1] = not last.terminated[env]
    return EpisodeBuffer(
        observations=with_leaves(
            last.observation, iter([np.stack([a[env] for a in leaf]) for leaf in leaves])
        ),
        actions=np.stack([step.action[env] for step in steps]),
        rewards=np.array([step.reward[env] for step in steps]),
        terminations=terminations,
        truncations=truncations,
    )


def _made_of(env: Environment, observation_space: gym.Space) -> Any:
    """Returns what `recover_environment` makes again, or None: one of a vector environment."""
    if not isinstance(env, VectorEnv):
        return env
    if not isinstance(env.spec, EnvSpec) or "wrappers" in env.spec.kwargs:
        return None
    spec = copy.deepcopy(env.spec)
    limit = spec.kwargs.pop("max_episode_steps", None)
    spec.max_episode_steps = limit or spec.max_episode_steps
    for name in ("num_envs", "vectorization_mode", "vector_kwargs"):
        spec.kwargs.pop(name, None)
    try:
        made = gym.make(spec)
    except Exception as error:
        warnings.warn(f"`recover_environment` will make no environment: {error}", stacklevel=3)
        return None
    made.close()
    return spec if made.observation_space == observation_space else None
