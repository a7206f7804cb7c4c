"""keras_dqn's `PrioritizedReplayBuffer`. Arguments: K, and a variant or `uniform`.

`uniform` is `ReplayBuffer`, which draws as many rows and has nothing to be fed back.
"""

import sys

import gymnasium as gym
import race
from prioritized_serve import ALPHA, BATCH_SIZE, BETA, ENVS, ROWS, K, Updates
from replay_data import GAMMA, NUM_ACTIONS

import keras_dqn

VARIANT = sys.argv[2]


class Buffer:
    def __init__(self, data, capacity):
        space = gym.spaces.Box(data.low, data.high, data.shape, data.dtype)
        spaces = (capacity, space, gym.spaces.Discrete(NUM_ACTIONS))
        if VARIANT == "uniform":
            self.replay = keras_dqn.ReplayBuffer(*spaces, num_envs=ENVS, seed=0)
        else:
            self.replay = keras_dqn.PrioritizedReplayBuffer(
                *spaces, alpha=ALPHA, beta=BETA, variant=VARIANT, num_envs=ENVS, seed=0
            )
        self.no = [False] * ENVS

    def add(self, observation, action, reward, terminated, next_observation):
        self.replay.add(observation, action, reward, terminated, self.no, next_observation)

    def update(self, td_errors):
        if VARIANT == "uniform":
            for _ in td_errors:
                self.replay.sample(ROWS, gamma=GAMMA)
            return
        for td_error in td_errors:
            _, transition, _ = self.replay.sample(BATCH_SIZE, gamma=GAMMA, num_batches=K)
            self.replay.update_priorities(transition["key"], td_error)


race.serve(Updates(Buffer))
