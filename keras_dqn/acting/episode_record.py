"""`EpisodeRecord`: the seeds of an environment's resets, and the actions since then, in NumPy.

The first axis of all arrays is `[E]`, the environments; a `gym.Env` is one environment.
"""

from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from keras_dqn.spaces.env_spaces import Environment, num_envs_of, single_spaces

# Some environments take 31 bits only, and a vector environment adds up to E - 1 to a seed.
_NUM_SEEDS = 2**31 - 2**16


class EpisodeRecord:
    """Gives each reset its seed and keeps the actions, so that running episodes can be repeated.

    The seed of a reset is a function of the entropy, the environment and the number of the reset.
    Only the first one is `seed` itself.

    A `gym.Env`, and each environment of a vector environment in mode DISABLED, is reset with a seed
    of its own. Then the record begins with the oldest running episode. Other vector environments
    reset themselves without a seed. Then it begins with the last reset of all environments.

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv`.
        seed: Int or None, the seed of the first reset. Defaults to `None`, fresh entropy.

    Attributes:
        entropy: Int, from which the seeds are derived.
        by_episode: Bool, whether each episode has a seed of its own.
        starts: `[E]` int64, the steps in the record before the running episode of each environment.
    """

    def __init__(self, env: Environment, seed: int | None = None) -> None:
        self.entropy: Any = np.random.SeedSequence(seed).entropy
        self.by_episode = _resets_one_by_one(env)
        self._vectorized = isinstance(env, VectorEnv)
        self._num_envs = num_envs_of(env)
        self._seed = seed
        self._numbers = np.full(self._num_envs, -1, np.int64)  # of the last reset; -1 is none
        self.starts = np.zeros(self._num_envs, np.int64)
        _, action_space = single_spaces(env)
        self._shape = (self._num_envs, *(action_space.shape or ()))  # of the actions of a step
        self._actions = np.zeros((64, *self._shape), np.int32)
        self._num_steps = 0

    @property
    def actions(self) -> NDArray[np.int32]:
        """The recorded actions, `[T, E]` (or `[T, E, D]`), 0-based."""
        return self._actions[: self._num_steps]

    def begin(self) -> Any:
        """Begins new episodes in all environments and returns the argument `seed` of the reset."""
        self._numbers += 1
        self.starts[:] = self._num_steps = 0
        return self.seeds()

    def begin_where(self, ended: NDArray[np.bool_]) -> None:
        """Begins new episodes where `ended` `[E]` is True."""
        self._numbers[ended] += 1
        self.starts[ended] = self._num_steps
        self._drop(int(self.starts.min()))

    def add(self, action: NDArray[np.int64]) -> None:
        """Adds the 0-based actions `[E]` of a step."""
        if self._num_steps == len(self._actions):
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)])
        self._actions[self._num_steps] = action
        self._num_steps += 1

    def seeds(self) -> Any:
        """Returns the argument `seed` of a reset of all environments, to begin what runs now."""
        if not (self._vectorized and self.by_episode):
            return self._seed_of(0)
        if self._seed is not None and not self._numbers.any():
            return self._seed  # stands for seed, seed + 1 and so on
        return self.seeds_where(np.ones(self._num_envs, bool))

    def seeds_where(self, mask: NDArray[np.bool_]) -> list[int | None]:
        """Returns the argument `seed` of a reset of the environments where `mask` `[E]` is True."""
        return [self._seed_of(e) if mask[e] else None for e in range(self._num_envs)]

    def get_state(self) -> dict[str, Any]:
        """Returns the origin of the seeds, the number of each environment's reset, the actions."""
        return {
            "seed": self._seed,
            "entropy": self.entropy,
            "numbers": self._numbers.copy(),
            "starts": self.starts.copy(),
            "actions": self.actions.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
        self._seed, self.entropy = state["seed"], state["entropy"]
        self._numbers = np.array(state["numbers"], np.int64)
        self.starts = np.array(state["starts"], np.int64)
        actions = np.array(state["actions"], np.int32).reshape(-1, *self._shape)
        self._num_steps = len(actions)
        self._actions = np.concatenate([actions, np.zeros((64, *self._shape), np.int32)])

    def _seed_of(self, e: int) -> int:
        number = int(self._numbers[e])
        if self._seed is not None and number == 0:
            return self._seed + e
        sequence = np.random.SeedSequence(self.entropy, spawn_key=(2, e, number))
        return int(sequence.generate_state(1)[0]) % _NUM_SEEDS

    def _drop(self, num_steps: int) -> None:
        """Drops the first steps, which belong to no running episode."""
        if num_steps:
            kept = self._num_steps - num_steps
            self._actions[:kept] = self._actions[num_steps : self._num_steps].copy()
            self._num_steps = kept
            self.starts -= num_steps


def _resets_one_by_one(env: Environment) -> bool:
    if not isinstance(env, VectorEnv):
        return True
    # Other vector environments may share one generator, which a seed would set for all of them.
    mode = env.metadata.get("autoreset_mode")
    separate = isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
    return separate and mode is not None and AutoresetMode(mode) is AutoresetMode.DISABLED
