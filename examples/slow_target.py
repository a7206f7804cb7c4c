"""Return and mean Q on CartPole over tau, hard updates and decay of epsilon; 6 to 12 minutes."""

import argparse
import csv
import itertools
import pathlib

import gymnasium as gym
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--env-steps", type=int, default=30_000, help="of each run (default 30000)")
parser.add_argument("--seeds", type=int, default=3, help="runs of each setting (default 3)")
parser.add_argument("--csv", type=pathlib.Path, default="slow_target.csv", help="to go on from")
args = parser.parse_args()
TARGETS = {
    "tau=1": (1.0, 1),
    "tau=0.05": (0.05, 1),
    "tau=0.005": (0.005, 1),
    "tau=0.0005": (0.0005, 1),
    "hard, every 500": (1.0, 500),
}
DECAYS = {"fast": 2_000, "slow": 20_000}
EPOCH_STEPS = 1_024


def learn(target, decay, seed):
    keras.utils.set_random_seed(seed)
    env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(64, "relu")]
    agent = keras_dqn.DQN(keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2)]))
    agent.compile(keras.optimizers.Adam(1e-3), steps_per_execution=64)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=seed)
    explore = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, DECAYS[decay]))
    test_env = gym.make_vec("CartPole-v1", num_envs=10, vectorization_mode="sync")
    history = agent.fit(
        replay.dataset(batch_size=64, gamma=0.99),
        epochs=max(1, args.env_steps // EPOCH_STEPS),
        steps_per_epoch=EPOCH_STEPS,
        verbose=0,
        callbacks=[
            keras_dqn.CollectTransitions(env, replay, exploration=explore, seed=seed),
            keras_dqn.SoftTargetUpdate(*TARGETS[target]),
            keras_dqn.EvaluatePolicy(test_env, episodes=10, seed=seed + 1_000),
        ],
    ).history
    return zip(history["env_steps"], history["val_return"], history["q_value"], strict=True)


rows = list(csv.reader(args.csv.read_text().splitlines())) if args.csv.exists() else []
done = {tuple(row[:3]) for row in rows}  # rows: target, decay, seed, env steps, return, mean Q
for seed, target, decay in itertools.product(range(args.seeds), TARGETS, DECAYS):
    if (target, decay, str(seed)) not in done:
        new = [[target, decay, str(seed), *values] for values in learn(target, decay, seed)]
        with args.csv.open("a", newline="") as file:
            csv.writer(file).writerows(new)
        rows += new
        print(f"{target}, {decay} decay, seed {seed}: return {new[-1][4]:.0f}", flush=True)

seeds = sorted({row[2] for row in rows})
figure, axes = plt.subplots(2, 2, figsize=(12, 8), sharex=True, sharey="row", layout="tight")
for (top, bottom), (decay, decay_steps) in zip(axes.T, DECAYS.items(), strict=True):
    for target in TARGETS:
        runs = [[row[3:] for row in rows if row[:3] == [target, decay, seed]] for seed in seeds]
        steps, returns, q_values = np.array(runs, float).mean(axis=0).T
        top.plot(steps, returns, label=target)
        bottom.plot(steps, q_values)
    top.set_title(f"{decay} decay of epsilon: {decay_steps:,} steps")
    bottom.axhline(100, color="gray", linestyle=":", linewidth=1)  # 1 / (1 - gamma)
    bottom.set_xlabel("environment steps")
axes[0, 0].set_ylabel("greedy return, mean of the seeds")
axes[1, 0].set_ylabel("mean Q of the actions taken")
axes[1, 0].set_yscale("symlog", linthresh=10)
axes[0, 0].legend()
figure.savefig("slow_target.png")
