"""
Title: Beyond the Rainbow
Author: The keras_dqn authors
Date created: 2026/11/24
Last modified: 2026/11/24
Description: BTR learns from pixels: a small game on a CPU, Atari at the size of its paper.
Accelerator: None
"""

import argparse
import os
from importlib.util import find_spec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import numpy as np

import keras_dqn

SIZES = {"num_envs": (8, 64), "batch_size": (32, 256), "rate": (5e-4, 1e-4), "copy": (250, 500)}
SIZES |= {"width": (1, 2), "pooling": (2, 6), "units": (64, 512), "capacity": (50_000, 2**20)}
SIZES |= {"warmup": (2_000, 200_000), "env_steps": (40_000, 50_000_000)}  # small and paper
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
parser.add_argument("--atari", metavar="GAME", help="such as Pong, at the size of the paper")
parser.add_argument("--small", action="store_true", help="the small size, with --atari too")
parser.add_argument("--env-steps", type=int, help="budget (default 40000 or 50000000)")
args = parser.parse_args()
if args.atari and not (find_spec("ale_py") and find_spec("cv2")):
    parser.error("--atari needs `python -m pip install ale-py opencv-python`")
keras.utils.set_random_seed(args.seed)
paper = bool(args.atari and not args.small)
size = argparse.Namespace(**{name: sizes[paper] for name, sizes in SIZES.items()})


class Catch(gym.Env):
    """A ball falls, also sideways. The paddle below it earns 1 if it catches it, else -1."""

    observation_space = gym.spaces.Box(0, 255, (12, 12), "uint8")
    action_space = gym.spaces.Discrete(3)  # left, stay, right

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.row, self.paddle = -1, 6
        self.column, self.speed = self.np_random.integers((0, -1), (12, 2))
        return self.step(1)[0], {}

    def step(self, action):
        self.row, self.paddle = self.row + 1, np.clip(self.paddle + action - 1, 1, 10)
        self.column = np.clip(self.column + self.speed, 0, 11)
        frame = np.zeros((12, 12), "uint8")
        frame[self.row, self.column] = frame[11, self.paddle - 1 : self.paddle + 2] = 255
        reward = 1.0 if abs(self.column - self.paddle) <= 1 else -1.0
        return frame, reward * (self.row == 11), self.row == 11, False, {}


def make_env(clip=True):
    if not args.atari:
        return gym.wrappers.FrameStackObservation(Catch(), 4)
    env = gym.wrappers.AtariPreprocessing(gym.make(f"ale_py:ALE/{args.atari}-v5", frameskip=1))
    env = gym.wrappers.FrameStackObservation(env, 4)
    return gym.wrappers.ClipReward(env, -1.0, 1.0) if clip else env


vector = gym.vector.AsyncVectorEnv if args.atari else gym.vector.SyncVectorEnv
env = vector([make_env] * size.num_envs)
form = {"width": size.width, "max_pooling": size.pooling, "spectral_normalization": True}
torso = keras_dqn.networks.impala_cnn(env.single_observation_space, None, hidden_units=None, **form)
head = keras_dqn.layers.DuelingHead(env.single_action_space.n, hidden_units=size.units, noisy=True)
agent = keras_dqn.ImplicitQuantileDQN(torso, head, munchausen=keras_dqn.Munchausen())
adam = keras.optimizers.Adam(size.rate, epsilon=0.005 / size.batch_size, global_clipnorm=10.0)
agent.compile(adam, steps_per_execution=8)
updates = ((args.env_steps or size.env_steps) - size.warmup) // size.num_envs
beta = keras_dqn.LinearSchedule(0.4, 1.0, updates)
replay = keras_dqn.PrioritizedReplayBuffer.from_env(
    env, size.capacity, frame_stack=4, alpha=0.2, beta=beta, seed=args.seed
)
steps = {"warmup_steps": size.warmup, "env_steps_per_update": size.num_envs}
collect = keras_dqn.CollectTransitions(
    env, replay, exploration=keras_dqn.NoisyGreedy(), seed=args.seed, **steps
)
follow = keras_dqn.SoftTargetUpdate(tau=1.0, update_freq=size.copy)
test = keras_dqn.EvaluatePolicy(make_env(clip=False), episodes=20, seed=args.seed + 1_000)
data = replay.dataset(size.batch_size, gamma=0.997, n_step=3)
agent.fit(data, epochs=10, steps_per_epoch=updates // 10, callbacks=[collect, follow, test])
print("return", test.evaluate(agent))
