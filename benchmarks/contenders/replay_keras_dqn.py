"""keras_dqn's `ReplayBuffer`.

`--frame-stack` stores each frame of a stack once; `--prioritized` takes `PrioritizedReplayBuffer`.
"""

import sys

import gymnasium as gym
import race
import replay_serve
from replay_data import CAPACITY, GAMMA, NUM_ACTIONS

import keras_dqn

OPTIONS = {"frame_stack": 4} if "--frame-stack" in sys.argv else {}
REPLAY_CLASS = (
    keras_dqn.PrioritizedReplayBuffer if "--prioritized" in sys.argv else keras_dqn.ReplayBuffer
)


class Buffer:
    def __init__(self, data, envs, n_step, capacity=CAPACITY):
        self.n_step = n_step
        space = gym.spaces.Box(data.low, data.high, data.shape, data.dtype)
        self.replay = REPLAY_CLASS(
            capacity, space, gym.spaces.Discrete(NUM_ACTIONS), num_envs=envs, seed=0, **OPTIONS
        )
        self.no = [False] * envs

    def add(self, observation, action, reward, terminated, next_observation):
        self.replay.add(observation, action, reward, terminated, self.no, next_observation)

    def sample(self, rows):
        self.replay.sample(rows, gamma=GAMMA, n_step=self.n_step)

    def __len__(self):
        return len(self.replay)


replay_serve.serve(Buffer, race)
