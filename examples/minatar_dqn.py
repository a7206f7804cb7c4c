"""
Title: MinAtar
Author: The keras_dqn authors
Date created: 2026/11/28
Last modified: 2026/11/28
Description: A DQN learns a game of MinAtar from its images; sizes for two cores or of the paper.
Accelerator: None
"""
# python -m pip install minatar, and ".[video]" for --video

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import minatar.gym
import numpy as np

import keras_dqn

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
SIZES = {"env_steps": (200_000, 5_000_000), "env_steps_per_update": (4, 1)}
SIZES |= {"warmup_steps": (1_000, 5_000), "epsilon": (0.05, 0.1), "decay": (10_000, 100_000)}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--game", choices=GAMES, default="Breakout", help="default Breakout")
parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
parser.add_argument("--paper", action="store_true", help="frames, updates and epsilon of the paper")
parser.add_argument("--env-steps", type=int, help="budget (default 200000 or 5000000)")
parser.add_argument("--video", metavar="FOLDER", help="where to record an episode (default: none)")
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)
size = argparse.Namespace(**{name: sizes[args.paper] for name, sizes in SIZES.items()})
env_steps = args.env_steps or size.env_steps

minatar.gym.register_envs()
name = f"MinAtar/{args.game}-v0"  # all six actions and sticky actions, as in the paper
env = gym.make_vec(name, num_envs=8, vectorization_mode="sync")
space, num_actions = env.single_observation_space, int(env.single_action_space.n)
updates = (env_steps - size.warmup_steps) // size.env_steps_per_update
learning_rate = keras.optimizers.schedules.PolynomialDecay(1e-3, updates, 0.0)
agent = keras_dqn.DQN(keras_dqn.networks.minatar_cnn(space, num_actions), double=True)
agent.compile(keras.optimizers.Adam(learning_rate, clipnorm=10.0), steps_per_execution=16)

replay = keras_dqn.ReplayBuffer.from_env(env, capacity=100_000, seed=args.seed)
schedule = keras_dqn.LinearSchedule(1.0, size.epsilon, size.decay)
collect = keras_dqn.CollectTransitions(
    env,
    replay,
    exploration=keras_dqn.EpsilonGreedy(schedule),
    env_steps_per_update=size.env_steps_per_update,
    warmup_steps=size.warmup_steps,
    max_env_steps=env_steps,
    seed=args.seed,
)
test_env = gym.make_vec(name, num_envs=10, vectorization_mode="sync")
limit = {"max_episode_steps": 10_000}  # most games go on until the agent loses
test = keras_dqn.EvaluatePolicy(test_env, episodes=20, seed=args.seed + 1_000, **limit)
agent.fit(
    replay.dataset(batch_size=64, gamma=0.99, n_step=3),
    epochs=10,
    steps_per_epoch=-(-updates // 10),
    callbacks=[collect, keras_dqn.SoftTargetUpdate(tau=0.01), test],
)
agent.save("minatar.keras")


class Screen(gym.Wrapper):
    """Draws each of the 10 x 10 cells as 32 x 32 pixels."""

    def render(self):
        return np.kron(255 * self.env.render(), np.ones((32, 32, 1))).astype("uint8")


if args.video:
    screen = Screen(gym.make(name, render_mode="rgb_array", disable_env_checker=True))
    first = {"episode_trigger": lambda episode: episode == 0, "name_prefix": args.game}
    recorded = gym.wrappers.RecordVideo(screen, args.video, **first)
    keras_dqn.EvaluatePolicy(recorded, episodes=1, seed=args.seed, **limit).evaluate(agent)
    recorded.close()
print("return", test.evaluate(agent))
