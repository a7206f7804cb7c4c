"""
Title: Offline Q-learning on a Minari dataset
Author: The keras_dqn authors
Date created: 2026/11/29
Last modified: 2026/11/29
Description: From recorded episodes, plain DQN overestimates what nobody tried; CQL does not.
Accelerator: None
"""

import argparse
import os
import tempfile
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import matplotlib.pyplot as plt
import minari
import numpy as np

import keras_dqn
from keras_dqn.integrations.minari import load, record

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--env-steps", type=int, default=6_000, help="of the agent that is recorded")
parser.add_argument("--episodes", type=int, default=200, help="episodes to record")
parser.add_argument("--updates", type=int, default=10_000, help="of the agents without environment")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--plot", default="offline.png")
args = parser.parse_args()
warnings.filterwarnings("ignore", "`.*` is set to None")  # Minari asks for an author and so on
keras.utils.set_random_seed(args.seed)
folder = tempfile.TemporaryDirectory()
os.environ["MINARI_DATASETS_PATH"] = folder.name  # instead of ~/.minari
env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")


def train(data, updates, callbacks=(), conservative=0.0, **kwargs):
    network = keras_dqn.networks.mlp(env.single_observation_space, 2)
    agent = keras_dqn.DQN(network, double=True, conservative=conservative)
    rate = keras.optimizers.schedules.PolynomialDecay(1e-3, updates, 0.0)
    agent.compile(keras.optimizers.Adam(rate, clipnorm=10.0), steps_per_execution=64)
    callbacks = [*callbacks, keras_dqn.SoftTargetUpdate(tau=0.02)]
    agent.fit(data, steps_per_epoch=updates, callbacks=callbacks, **kwargs)
    return agent


def values_and_returns(agent, dataset_id):
    """Returns the values along five episodes and the discounted returns that followed."""
    values, returns, policy = [], [], agent.policy()
    for episode in record(agent, env, dataset_id, episodes=5, seed=1):
        rewards, ended = episode.rewards, episode.terminations[-1]
        known = len(rewards) if ended else 100  # what the time limit hides is 2% at most
        weights = 0.99 ** np.arange(len(rewards))
        returns.extend([weights[: len(rewards) - t] @ rewards[t:] for t in range(known)])
        values.extend(policy.action_values(episode.observations[:known]).max(axis=-1))
    return values, returns


replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=args.seed)
explore = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000))
collect = keras_dqn.CollectTransitions(env, replay, exploration=explore, seed=args.seed)
half_trained = train(replay.dataset(64, n_step=5), args.env_steps, [collect], verbose=0)
options = {"exploration": keras_dqn.EpsilonGreedy(0.1), "seed": args.seed}
dataset = record(half_trained, env, "cartpole-v0", episodes=args.episodes, **options)
print(f"recorded: return {np.mean([episode.rewards.sum() for episode in dataset]):.1f}")
# From here on no agent learns from an environment.
sizes = [args.episodes - args.episodes // 10, args.episodes // 10]
parts = minari.split_dataset(dataset, sizes, seed=args.seed)
replay, unseen = (load(part, seed=args.seed).dataset(64) for part in parts)
evaluate = keras_dqn.EvaluatePolicy(gym.make("CartPole-v1"), episodes=100, seed=1)
for name, alpha in {"DQN": 0.0, "conservative": 1.0}.items():
    validation = {"validation_data": unseen, "validation_steps": 100}
    agent = train(replay, args.updates, conservative=alpha, verbose=2, **validation)
    values, returns = values_and_returns(agent, f"{name}/test-v0")
    plt.scatter(returns, values, s=4, label=name)
    print(f"{name}: return {evaluate.evaluate(agent):.1f}, ", end="")
    print(f"mean value {np.mean(values):.1f} where {np.mean(returns):.1f} followed")
plt.plot([0, 100], [0, 100], color="gray", linestyle=":", label="value = return")
plt.gca().set(xlabel="discounted return that followed", ylabel="value of the action taken")
plt.yscale("symlog", linthresh=100)
plt.title(f"Without environment, from {len(dataset)} recorded episodes")
plt.legend()
plt.savefig(args.plot, dpi=120)
folder.cleanup()
print(f"plot: {args.plot}")
