"""
Title: A video of an episode
Author: The keras_dqn authors
Date created: 2026/11/22
Last modified: 2026/11/24
Description: Plays one greedy episode of a saved agent and records it as a video.
Accelerator: None
"""
# python -m pip install ".[video]"

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("agent", nargs="?", type=pathlib.Path, default="cartpole.keras")
parser.add_argument("--env", default="CartPole-v1", help="its environment")
parser.add_argument("--folder", type=pathlib.Path, default="videos", help="folder of the video")
parser.add_argument("--seed", type=int, default=0, help="of the episode (default 0)")
args = parser.parse_args()
if not args.agent.exists():
    parser.error(f"no file {args.agent}; `python examples/cartpole.py` makes cartpole.keras")

env = gym.wrappers.RecordVideo(
    gym.make(args.env, render_mode="rgb_array"),
    str(args.folder),
    episode_trigger=lambda episode: episode == 0,
    name_prefix=args.agent.stem,
)
evaluation = keras_dqn.EvaluatePolicy(env, episodes=1, seed=args.seed)
print("return", evaluation.evaluate(keras.models.load_model(args.agent)))
env.close()
print(args.folder / f"{args.agent.stem}-episode-0.mp4")
