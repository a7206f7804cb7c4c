"""Uniform experience replay: one ring of rows per environment, NumPy in and NumPy out."""

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from keras_dqn.arguments import check_below, check_seed
from keras_dqn.replay.blocks import Block, check_block
from keras_dqn.replay.checks import StepChecks, check_envs, check_sampling, check_sizes
from keras_dqn.replay.episode_block import episode_block
from keras_dqn.replay.gather import gather, stacked
from keras_dqn.replay.n_step import Windows
from keras_dqn.replay.persistent_buffer import PersistentBuffer
from keras_dqn.replay.protocols import Sampler
from keras_dqn.replay.rings import make_rings
from keras_dqn.replay.storage import allocator
from keras_dqn.replay.uniform_sampler import UniformSampler
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.env_spaces import num_envs_of, single_spaces
from keras_dqn.spaces.observation_spec import ObservationSpec

if TYPE_CHECKING:
    from keras_dqn.replay.replay_dataset import ReplayDataset


class ReplayBuffer(PersistentBuffer):
    """Stores transitions and draws them uniformly, with replacement.

    Each environment writes into its own ring. A row holds an observation and the action, reward and
    end of the step taken from it. The next row holds the next observation, so each observation is
    stored once. The final observation of an episode is a boundary row: it takes a row and is never
    drawn as a start. If an environment's `observation` is not its last `next_observation` although
    no episode ended (other code reset it), that `next_observation` becomes a boundary row too, and
    windows end there as at a truncation.

    Args:
        capacity: Int, rows over all environments, `capacity // num_envs` for each of them. New rows
            overwrite the oldest.
        observation_space: Gymnasium space of one environment's observations: Box, Discrete,
            MultiBinary, MultiDiscrete or a (nested) Dict or Tuple of them.
        action_space: `gymnasium.spaces.Discrete` of one environment, or `MultiDiscrete` with one
            axis, of D branches.
        num_envs: Int, environments that step together, E. Defaults to `1`.
        frame_stack: Int or None, frames k that an observation stacks on its first axis, the newest
            last, as `gymnasium.wrappers.FrameStackObservation(env, k)` does. Each frame is stored
            once, and stacks are rebuilt when drawn. Of a Dict or Tuple, the entries with a first
            axis of k and at least one more are stacks, except int8. Defaults to `None`.
        storage: `"memory"`, or `"memmap"` for arrays in files, which may be larger than memory.
            `flush` and `load(directory)` close and reopen them without copying. Defaults to
            `"memory"`.
        directory: String or path of the files of `"memmap"`. Defaults to `None`.
        seed: Int or None, for the random draws. Defaults to `None`.

    Raises:
        ValueError: If `capacity` is below `num_envs`, a space is of another kind, or observations
            are not stacked as `frame_stack` says.
        MemoryError: If the rows cannot be allocated in memory; an `OSError` for files.

    Example:
    >>> space = gym.spaces.Box(-1.0, 1.0, (2,))
    >>> replay = ReplayBuffer(100, space, gym.spaces.Discrete(3), seed=0)
    >>> replay.add(np.zeros(2), 1, 0.5, False, False, np.ones(2))
    >>> observation, transition, weight = replay.sample(4, gamma=0.9)
    >>> transition["action"]
    array([1, 1, 1, 1], dtype=int32)

    Reference:
        Lin, 1992, "Self-improving reactive agents based on reinforcement learning, planning and
        teaching"; Mnih et al., 2015.
    """

    def __init__(
        self,
        capacity: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        num_envs: int = 1,
        frame_stack: int | None = None,
        storage: str = "memory",
        directory: Any = None,
        seed: int | None = None,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.seed = check_seed(seed)
        sizes = check_sizes(capacity, num_envs, frame_stack)
        capacity, num_envs, frame_stack = self.capacity, self.num_envs, self.frame_stack = sizes
        self.storage = allocator(storage, directory)
        self._rng = np.random.default_rng(seed)
        self._spec = spec = ObservationSpec(observation_space, frame_stack)
        actions = ActionSpec(action_space)
        self._checks = StepChecks(spec, actions, num_envs)
        num_rows = capacity // num_envs
        self._rings = make_rings(
            num_envs, num_rows, spec.leaves, frame_stack, self.storage, actions.shape
        )
        self._sampler: Sampler = UniformSampler(self._rings, self._rng)

    @classmethod
    def from_env(
        cls, env: gym.Env | gym.vector.VectorEnv, capacity: int, **kwargs: Any
    ) -> "ReplayBuffer":
        """Creates a buffer with the spaces and the `num_envs` of an environment.

        Args:
            env: A Gymnasium environment or vector environment.
            capacity: Int, rows over all environments.
            **kwargs: Further arguments of the constructor. `num_envs` replaces that of `env`.
        """
        observation_space, action_space = single_spaces(env)
        kwargs = {"num_envs": num_envs_of(env), **kwargs}
        return cls(capacity, observation_space, action_space, **kwargs)

    def __len__(self) -> int:
        """Returns the number of stored transitions; boundary rows do not count."""
        return self._rings.num_transitions

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self._rings.arrays().values())

    # Writing

    def add(
        self,
        observation: Any,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        next_observation: Any,
        *,
        where: Any = None,
    ) -> None:
        """Stores one step of all environments.

        The first axis `[E]` may be left out if `num_envs=1`. A refused call changes nothing.

        Args:
            observation: `[E, ...]` (or a dict of arrays), from which the actions were chosen.
            action: `[E]` integer, elements of `action_space`, as given to `env.step`.
            reward: `[E]` float, finite.
            terminated: `[E]` bool.
            truncated: `[E]` bool.
            next_observation: `[E, ...]`, the observation after the step: at the end of an episode
                the final one, never the one after the reset.
            where: `[E]` bool, True for environments that took a step, False for those that an
                autoreset has just reset. Defaults to all True.

        Raises:
            ValueError: If a shape or dtype does not fit the spaces, an action or a discrete
                observation is outside its space, or a number is NaN or infinite. Numbers outside
                the bounds of a Box are stored, with one warning.
        """
        checked = self._checks.step(
            observation, action, reward, terminated, truncated, next_observation, where
        )
        self._rings.add(*checked)
        self._written()

    def add_episode(
        self, observations: Any, actions: Any, rewards: Any, terminated: bool, *, env: int = 0
    ) -> None:
        """Stores a whole episode of T steps. If one runs in the same ring, it is cut before.

        Args:
            observations: `[T + 1, ...]` (or a dict of arrays): before each step, and the final one.
            actions: `[T]` integer, elements of `action_space`.
            rewards: `[T]` float, finite.
            terminated: Bool, whether the last step terminated. If not, it counts as truncated.
            env: Int in [0, E), the environment whose ring takes the episode. Defaults to `0`.

        Raises:
            TypeError: If `terminated` is not a bool.
            ValueError: If sizes do not fit, or as in `add`.
        """
        env = check_below("env", env, self.num_envs)
        specs = self._spec, ActionSpec(self.action_space)
        block = episode_block(*specs, observations, actions, rewards, terminated)
        self._rings.append_rows(block, env)
        self._written()

    def add_block(self, block: Block, first_env: int = 0) -> None:
        """Stores a block of rows that a `BlockRecorder` gave, perhaps in another process.

        The blocks of one recorder must come in their order. If one is missing, or a new recorder
        writes for the same environments, the running episodes are cut. A refused call changes
        nothing. An interrupted one may have stored the first rows.

        Args:
            block: `Block` of E environments.
            first_env: Int, the environment of this buffer that is the block's first one. The block
                fills the rings `first_env` to `first_env + E - 1`. Defaults to `0`.

        Raises:
            TypeError: If an argument has another type.
            ValueError: If the block does not fit the buffer. The numbers of observations are not
                checked again.
        """
        arrays, sizes = self._rings.arrays(), ActionSpec(self.action_space).sizes
        first_env = check_block(block, first_env, self.num_envs, arrays, sizes)
        follows = self._rings.append_rows(block, first_env)
        self._take_ratings(block, first_env, follows)
        self._written()

    def end_episodes(self, envs: list[int]) -> None:
        """Ends the running episodes of environments as truncated: no more steps of them will come.

        Args:
            envs: List of ints in [0, E). Where no episode runs, nothing changes.

        Raises:
            TypeError: If it is no list of integers.
            ValueError: If an environment is outside the range. Then nothing changes.
        """
        self._rings.end_episodes(check_envs(envs, self.num_envs))
        self._written()

    def _take_ratings(self, block: Block, first_env: int, follows: NDArray[np.bool_]) -> None:
        """Takes the TD errors of a block that was stored."""

    def _written(self) -> None:
        if not self.storage.has_header:
            self.flush()  # then a killed process loses only priorities

    # Drawing

    def sample(
        self,
        batch_size: int,
        *,
        gamma: float = 0.99,
        n_step: int = 1,
        num_batches: int | None = None,
    ) -> tuple:
        """Draws transitions, with replacement, as the triple that `fit` unpacks.

        A start is drawn only if its window is complete: n steps are stored, or the episode ended
        within them.

        Args:
            batch_size: Int, transitions in a batch, B, at least 1.
            gamma: Float in [0, 1], the discount of one environment step. Defaults to `0.99`.
            n_step: Int, environment steps in a return, n, at least 1. Defaults to `1`.
            num_batches: Int, batches K of a stack `[K, B, ...]`; None for one. Defaults to `None`.

        Returns:
            `(observation, transition, weight)`: `[B, ...]` of the space's dtype (or a dict of
            arrays); a dict with `action` `[B]` int32 (0-based), `reward` `[B]` float32 (the n-step
            sum), `discount` `[B]` float32 (`gamma**m * (1 - terminated)`) and `next_observation`
            `[B, ...]`; and ones `[B]` float32.

        Raises:
            ValueError: If an argument is outside its range.
            RuntimeError: If no transition can be drawn yet.
        """
        check_sampling(batch_size, gamma, n_step, num_batches)
        env, row, window = self._sampler.draw(num_batches or 1, batch_size, gamma, n_step)
        batch = self._gather(env, row, window, batch_size)
        return batch if num_batches is None else tuple(stacked(b, num_batches) for b in batch)

    def empty_batch(self) -> tuple:
        """Returns a batch of 0 transitions, to show the shapes and dtypes of `sample`."""
        nothing = np.zeros(0, np.int64)
        return self._gather(nothing, nothing, self._rings.windows(nothing, nothing, 1.0, 1), 1)

    def _gather(self, env: NDArray, row: NDArray, window: Windows, batch_size: int) -> tuple:
        rings, slots = self._rings, self._rings.slots(env, row)
        observation, transition = gather(rings, self._spec, env, row, slots, window)
        transition |= self._columns(env, row)
        weights = self._sampler.weights(slots.reshape(-1, batch_size))
        return observation, transition, weights.ravel().astype(np.float32)

    def _columns(self, env: NDArray[np.int64], row: NDArray[np.int64]) -> dict[str, NDArray]:
        """Returns further columns of transitions that start in rows `[N]`."""
        return {}

    def dataset(self, batch_size: int, *, gamma: float = 0.99, n_step: int = 1) -> "ReplayDataset":
        """Returns an endless `tf.data.Dataset` of the batches of `sample`, drawn when needed.

        Args:
            batch_size: Int, transitions in a batch, B, at least 1.
            gamma: Float in [0, 1], the discount of one environment step. Defaults to `0.99`.
            n_step: Int, environment steps in a return, n, at least 1. Defaults to `1`.

        Raises:
            ValueError: If an argument is outside its range.
        """
        from keras_dqn.replay.replay_dataset import ReplayDataset

        return ReplayDataset(self, batch_size, gamma=gamma, n_step=n_step)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments except the spaces, as JSON can hold them."""
        return {n: getattr(self, n) for n in ("capacity", "num_envs", "frame_stack", "seed")}
