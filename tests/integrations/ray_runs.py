"""Environments, agents and checks for the tests of collection on Ray."""

import os
import time
from typing import Any

import gymnasium as gym
import keras
import numpy as np
from gymnasium.vector import SyncVectorEnv

import keras_dqn
from keras_dqn.integrations.ray import RayCollectTransitions


class Numbered(gym.Env):
    """Shows itself, the number of its episode and that of its step; ends at random steps.

    The observation is `(environment, episode, step)`. The reward of a step is its number. So two
    rows that follow each other in a buffer tell whether they did so in an environment.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Discrete(3, start=1)

    def __init__(self, seconds: float = 0.0, end: float = 0.1) -> None:
        self.seconds = seconds
        self.end = end
        self.episode = 0
        self.identity = os.getpid() + np.random.default_rng().random()

    def _observation(self) -> Any:
        return np.array([self.identity, self.episode, self.step_number])

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode += 1
        self.step_number = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        assert action in self.action_space
        time.sleep(self.seconds)
        self.step_number += 1
        ended = self.np_random.random() < self.end
        truncated = bool(ended and self.np_random.random() < 0.5)
        reward = float(self.step_number)
        return self._observation(), reward, bool(ended and not truncated), truncated, {}


def numbered(num_envs: int | None = None, mode: Any = "NextStep", **kwargs: Any) -> Any:
    """A function that makes a numbered environment, or a vector environment of them."""
    if num_envs is None:
        return lambda: Numbered(**kwargs)
    return lambda: SyncVectorEnv([lambda: Numbered(**kwargs)] * num_envs, autoreset_mode=mode)


def new_agent(inputs: int = 3, actions: int = 3, rate: float = 1e-3, K: int = 8) -> Any:
    """A compiled agent for them, the same each time; its two networks differ."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((inputs,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(actions)]
    )
    agent = keras_dqn.DQN(network)
    agent.target_network.set_weights([w + 0.1 for w in agent.target_network.get_weights()])
    agent.compile(keras.optimizers.SGD(rate, clipnorm=1.0), steps_per_execution=K)
    return agent


def make_run(make_env: Any, *, workers: int = 2, envs: int = 1, **kwargs: Any) -> tuple:
    """An agent, a buffer that overwrites nothing, and a callback that collects."""
    kind = kwargs.pop("kind", keras_dqn.ReplayBuffer)
    capacity = kwargs.pop("capacity", 20_000)
    replay = kind.from_env(make_env(), capacity, num_envs=workers * envs, seed=0)
    kwargs = {"warmup_steps": 40, "block_size": 8, "seed": 0, **kwargs}
    return replay, RayCollectTransitions(make_env, replay, num_workers=workers, **kwargs)


def train(agent: Any, replay: Any, collect: Any, *, epochs: int = 2, steps: int = 40, **kw: Any):
    """Trains for a short time."""
    callbacks = [collect, keras_dqn.SoftTargetUpdate(), *kw.pop("callbacks", [])]
    return agent.fit(
        replay.dataset(8, gamma=0.9, n_step=kw.pop("n_step", 1)),
        epochs=epochs, steps_per_epoch=steps, verbose=0, callbacks=callbacks, **kw,
    )  # fmt: skip


def check_numbers(replay: Any, env_steps: int) -> dict:
    """Checks each row of a buffer that has overwritten nothing; returns the episodes in it.

    Each transition is in it once, goes from a step to the next one of the same episode, and the
    rows of an episode follow each other from step 0 on. There are `env_steps` of them.
    """
    rings, seen, episodes = replay._rings, set(), {}
    assert max(rings.heads_list) <= rings.num_rows
    for env, head in enumerate(rings.heads_list):
        before = None
        for row in range(head):
            slot = env * rings.ring_size + row
            start = tuple(rings.observations[0][slot])
            if rings.flags[slot] >= 4:  # a boundary row: the last observation of an episode
                assert start == before
                before = None
                continue
            after = tuple(rings.observations[0][slot + 1])
            assert after == (start[0], start[1], start[2] + 1), (start, after)
            assert rings.rewards[slot] == after[2]
            assert before in (None, start)
            if before is None:
                assert start[2] == 0, "an episode begins in its middle"
            assert start not in seen
            seen.add(start)
            episodes.setdefault(start[:2], []).append((int(start[2]), int(rings.flags[slot])))
            before = after
    assert len(seen) == len(replay) == env_steps
    return episodes


class MaskedBranches(Numbered):
    """With two branches of 3 and 2 choices, and a mask; a choice that it forbids is an error."""

    action_space = gym.spaces.MultiDiscrete([3, 2], start=[1, 0])

    def _mask(self) -> Any:
        mask = np.ones((2, 3), np.int8)
        mask[1, 2] = 0
        mask[0, self.step_number % 3] = mask[1, self.step_number % 2] = 0
        return mask

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return observation, {**info, "action_mask": self._mask()}

    def step(self, action: Any) -> Any:
        choices = action - self.action_space.start
        assert self._mask()[[0, 1], choices].all(), "a forbidden choice"
        *rest, info = super().step(action)
        return (*rest, {**info, "action_mask": self._mask()})


def masked_branches() -> Any:
    """Makes such an environment with its mask in the observation."""
    return keras_dqn.ActionMaskObservation(MaskedBranches())
