"""Finds wrappers whose own state does not begin anew with `reset`, such as running means."""

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from gymnasium.wrappers import vector as vector_wrappers

from keras_dqn.spaces.env_spaces import Environment

_STATEFUL = (
    NormalizeObservation,
    NormalizeReward,
    vector_wrappers.NormalizeObservation,
    vector_wrappers.NormalizeReward,
)


def stateful_wrappers(env: Environment) -> list[str]:
    """Returns the names of the wrappers whose statistics repeated episodes do not restore.

    It looks through all wrappers of an environment or vector environment, from the outside, and
    into the environments of a SyncVectorEnv, of which it names each wrapper once. The environments
    of an AsyncVectorEnv are in other processes: it does not see their wrappers.
    """
    names = []
    while isinstance(env, (gym.Wrapper, VectorWrapper)):
        if isinstance(env, _STATEFUL):
            names.append(type(env).__name__)
        env = env.env
    if isinstance(env, SyncVectorEnv):
        names += [name for one in env.envs for name in stateful_wrappers(one)]
    return list(dict.fromkeys(names))
