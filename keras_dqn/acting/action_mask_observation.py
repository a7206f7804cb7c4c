"""`ActionMaskObservation`: moves `info["action_mask"]` into the observation, for replay."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.env_spaces import Environment, single_spaces

KEY = "action_mask"


class ActionMaskObservation(gym.Wrapper):
    """Makes observations `{"observation": ..., "action_mask": ...}` of those and `info`.

    Gymnasium's environments tell in `info["action_mask"]` which actions have an effect or are
    legal, such as Taxi-v4. `DQN(network, action_mask="action_mask")` then takes no other action,
    and its network gets the entry `"observation"` alone.

    ```
    env = ActionMaskObservation(gym.make("Taxi-v4"))
    env = gym.make_vec("Taxi-v4", num_envs=8, vectorization_mode="sync",
                       wrappers=[ActionMaskObservation])
    env = ActionMaskObservation(vector_env)      # one that gives masks itself
    ```

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv` with a `Discrete` or `MultiDiscrete` action space.
            Its `info` has the mask, `[A]` or `[E, A]` integer (with branches `[D, A]` or
            `[E, D, A]`), after each `reset` and `step`; 0 forbids an action. In mode SAME_STEP, the
            masks of final observations are in `info["final_info"]`.

    Raises:
        TypeError: If `env` is not a Gymnasium environment.
        ValueError: If the action space is of another kind; in `reset` and `step`, if `info` has no
            mask, or one of another shape.
    """

    def __new__(cls, env: Environment) -> Any:
        """Returns a vector wrapper for a vector environment."""
        if isinstance(env, VectorEnv):
            return VectorActionMaskObservation(env)
        return super().__new__(cls)

    def __init__(self, env: gym.Env) -> None:
        observation_space, action_space = single_spaces(env)
        super().__init__(env)
        self._shape = ActionSpec(action_space).values_shape
        self.observation_space = _with_mask(observation_space, self._shape)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        """Resets the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._joined(observation, info), info

    def step(self, action: Any) -> tuple:
        """Takes an action."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._joined(observation, info), reward, terminated, truncated, info

    def _joined(self, observation: Any, info: dict) -> dict:
        mask = _mask_in(info, self._shape)
        return {"observation": observation, KEY: mask.astype(np.int8)}


class VectorActionMaskObservation(VectorWrapper):
    """What `ActionMaskObservation(env)` makes of a vector environment `env`."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        shape = ActionSpec(env.single_action_space).values_shape
        self.single_observation_space = _with_mask(env.single_observation_space, shape)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._mask = np.zeros((env.num_envs, *shape), np.int8)

    def reset(self, *, seed: Any = None, options: dict | None = None) -> tuple:
        """Resets all environments, or those of `options["reset_mask"]`."""
        # Gymnasium's wrappers take the entry out of the dict.
        reset_mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        observation, info = self.env.reset(seed=seed, options=options)
        return self._joined(observation, info, reset_mask), info

    def step(self, actions: Any) -> tuple:
        """Takes an action in each environment."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            info = {**info, "final_obs": self._final(info, terminated | truncated)}
        joined = self._joined(observation, info, np.ones(self.num_envs, bool))
        return joined, reward, terminated, truncated, info

    def _joined(self, observation: Any, info: dict, needed: NDArray[np.bool_]) -> dict:
        mask = _mask_in(info, self._mask.shape)
        _check_given(info, needed)
        self._mask[needed] = mask[needed]
        return {"observation": observation, KEY: self._mask.copy()}

    def _final(self, info: dict, ended: NDArray[np.bool_]) -> NDArray:
        """Returns the final observations with their masks, None where no episode has ended."""
        final_info = info.get("final_info", {})
        mask = _mask_in(final_info, self._mask.shape).astype(np.int8)
        _check_given(final_info, ended)
        final = np.full(self.num_envs, None, object)
        for e in np.flatnonzero(ended):
            final[e] = {"observation": info["final_obs"][e], KEY: mask[e]}
        return final


def _with_mask(space: gym.Space, shape: tuple[int, ...]) -> gym.spaces.Dict:
    mask = gym.spaces.Box(0, 1, shape, np.int8)
    return gym.spaces.Dict({"observation": space, KEY: mask})


def _mask_in(info: dict, shape: tuple[int, ...]) -> NDArray:
    mask = info.get(KEY)
    if isinstance(mask, tuple) and len(mask) == shape[0]:  # as `MultiDiscrete.sample` takes it
        mask = [np.pad(branch, (0, shape[-1] - len(branch))) for branch in mask]
    mask = np.asarray(mask)
    if mask.shape != shape or mask.dtype.kind not in "iub":
        raise ValueError(
            f'`info["{KEY}"]` must be an integer array of shape {shape}, after each `reset` and '
            f"`step`. Received: {info.get(KEY)!r}"
        )
    return mask


def _check_given(info: dict, needed: NDArray[np.bool_]) -> None:
    """Raises a `ValueError` if an environment has given no mask where it is needed."""
    missing = needed & ~np.asarray(info.get(f"_{KEY}", needed), bool)
    if missing.any():
        raise ValueError(
            f'`info["{KEY}"]` must have the mask of each environment. Received: none of the '
            f"environments {np.flatnonzero(missing).tolist()}"
        )
