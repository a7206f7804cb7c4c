"""
Title: Atari
Author: The keras_dqn authors
Date created: 2026/11/29
Last modified: 2026/11/29
Description: A DQN learns an Atari game from the screen; sizes for two cores or of the paper.
Accelerator: None
"""
# python -m pip install ale-py, and ".[video]" opencv-python for --video

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras

import keras_dqn

SIZES = {"env_steps": (500_000, 50_000_000), "capacity": (100_000, 1_000_000)}
SIZES |= {"warmup_steps": (5_000, 20_000), "decay": (50_000, 250_000)}  # small and paper
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--game", default="Pong", help="as in ALE/Pong-v5 (default Pong)")
parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
parser.add_argument("--paper", action="store_true", help="network, budget and sizes of the papers")
parser.add_argument("--env-steps", type=int, help="budget in steps of four frames")
parser.add_argument("--video", metavar="FOLDER", help="where to record a game (default: none)")
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)
size = argparse.Namespace(**{name: sizes[args.paper] for name, sizes in SIZES.items()})
env_steps = args.env_steps or size.env_steps
name = f"ale_py:ALE/{args.game}-v5"
# As Machado et al. (2018) advise: sticky actions, no other randomness, a lost life ends nothing.
protocol = {"repeat_action_probability": 0.25, "noop_max": 0, "use_fire_reset": False}
protocol |= {"frameskip": 4, "episodic_life": False, "reward_clipping": False}

env = gym.make_vec(name, num_envs=8, **protocol)
env = gym.wrappers.vector.RecordEpisodeStatistics(env)  # of the true rewards
env = gym.wrappers.vector.ClipReward(env, -1.0, 1.0)
test_env = gym.make_vec(name, num_envs=10, **protocol)
space, num_actions = env.single_observation_space, int(env.single_action_space.n)
if args.paper:
    network = keras_dqn.networks.nature_cnn(space, num_actions)
else:  # the network of the first DQN paper (Mnih et al., 2013), about four times as fast
    network = keras.Sequential([keras.Input(space.shape), keras.layers.Permute((2, 3, 1))])
    network.add(keras.layers.Rescaling(1 / 255))
    network.add(keras.layers.Conv2D(16, 8, 4, activation="relu"))
    network.add(keras.layers.Conv2D(32, 4, 2, activation="relu"))
    network.add(keras.layers.Flatten())
    network.add(keras.layers.Dense(256, "relu"))
    network.add(keras.layers.Dense(num_actions))
agent = keras_dqn.DQN(network, double=True)
agent.compile(keras.optimizers.Adam(2.5e-4, epsilon=1.5e-4), steps_per_execution=8)

replay = keras_dqn.ReplayBuffer.from_env(env, size.capacity, frame_stack=4, seed=args.seed)
schedule = keras_dqn.LinearSchedule(1.0, 0.01, size.decay)
collect = keras_dqn.CollectTransitions(
    env,
    replay,
    exploration=keras_dqn.EpsilonGreedy(schedule),
    env_steps_per_update=4,
    warmup_steps=size.warmup_steps,
    max_env_steps=env_steps,
    seed=args.seed,
)
test = keras_dqn.EvaluatePolicy(test_env, episodes=10, seed=args.seed + 1_000)
updates = (env_steps - size.warmup_steps) // 4
agent.fit(
    replay.dataset(batch_size=32, gamma=0.99, n_step=3),
    epochs=10,
    steps_per_epoch=-(-updates // 10),
    callbacks=[collect, keras_dqn.SoftTargetUpdate(tau=0.005), test],
)
agent.save("atari.keras")

if args.video:
    game = gym.make(name, render_mode="rgb_array", frameskip=1)
    game = gym.wrappers.AtariPreprocessing(game, noop_max=0)
    game = gym.wrappers.FrameStackObservation(game, 4, padding_type="zero")
    first = {"episode_trigger": lambda episode: episode == 0, "name_prefix": args.game}
    recorded = gym.wrappers.RecordVideo(game, args.video, **first)
    keras_dqn.EvaluatePolicy(recorded, episodes=1, seed=args.seed).evaluate(agent)
    recorded.close()
print("return", test.evaluate(agent))
