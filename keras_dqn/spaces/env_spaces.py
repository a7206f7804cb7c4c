"""Reads the spaces and the number of environments of an environment or vector environment."""

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

Environment = gym.Env | VectorEnv


def num_envs_of(env: Environment) -> int:
    """Returns E, the number of environments that step together."""
    return env.num_envs if isinstance(env, VectorEnv) else 1


def single_spaces(env: Environment) -> tuple[gym.Space, Any]:
    """Returns the observation space and the action space of one environment.

    Raises:
        TypeError: If `env` is not a Gymnasium environment.
    """
    if isinstance(env, VectorEnv):
        return env.single_observation_space, env.single_action_space
    if isinstance(env, gym.Env):
        return env.observation_space, env.action_space
    raise TypeError(
        "`env` must be a gymnasium.Env or a gymnasium.vector.VectorEnv. "
        f"Received: env={env} of type {type(env)}"
    )
