"""Stable-Baselines3's DQN until its first update has ended; prints seconds of each part."""

# ruff: noqa: E402

import itertools
import json
import os
import time

marks = [("", float(os.environ["FIRST_UPDATE_STARTED_AT"])), ("start of Python", time.time())]

import gymnasium as gym
from stable_baselines3 import DQN

marks.append(("imports", time.time()))
agent = DQN(
    "MlpPolicy",
    gym.make("CartPole-v1"),
    learning_starts=1_000,
    train_freq=1,
    policy_kwargs={"net_arch": [128, 128]},
    device="cpu",
)
marks.append(("network and agent", time.time()))
agent.learn(1_001)
marks.append(("warm-up, 1,000 environment steps, and an update", time.time()))
pairs = itertools.pairwise(marks)
print(json.dumps({name: after - before for (_, before), (name, after) in pairs}))
