"""What a slow target network does: CartPole over tau, hard updates and the decay of epsilon.

Each combination learns with 3 seeds. One picture shows the greedy return and the mean value of the
actions taken against environment steps. About 6 minutes; finished runs are kept in the CSV
file and not repeated.
"""

import argparse
import csv
import pathlib

import gymnasium as gym
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_dqn

TARGETS = {
    "tau=1": (1.0, 1),
    "tau=0.05": (0.05, 1),
    "tau=0.005": (0.005, 1),
    "tau=0.0005": (0.0005, 1),
    "hard, every 500": (1.0, 500),
}
DECAYS = {"fast": 2_000, "slow": 20_000}
EPOCH_STEPS = 1_024


def learn(tau, update_freq, decay_steps, seed, epochs):
    keras.utils.set_random_seed(seed)
    env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(64, "relu")]
    agent = keras_dqn.DQN(keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2)]))
    agent.compile(keras.optimizers.Adam(1e-3), steps_per_execution=64)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=seed)
    explore = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, decay_steps))
    test_env = gym.make_vec("CartPole-v1", num_envs=10, vectorization_mode="sync")
    return agent.fit(
        replay.dataset(batch_size=64, gamma=0.99),
        epochs=epochs,
        steps_per_epoch=EPOCH_STEPS,
        verbose=0,
        callbacks=[
            keras_dqn.CollectTransitions(env, replay, exploration=explore, seed=seed),
            keras_dqn.SoftTargetUpdate(tau, update_freq),
            keras_dqn.EvaluatePolicy(test_env, episodes=10, seed=seed + 1_000),
        ],
    ).history


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-steps", type=int, default=30_000, help="of each run (default 30000)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each setting (default 3)")
    parser.add_argument("--csv", type=pathlib.Path, default="slow_target.csv")
    args = parser.parse_args()
    epochs = max(1, args.env_steps // EPOCH_STEPS)
    rows = list(csv.reader(args.csv.open())) if args.csv.exists() else []
    done = {tuple(row[:3]) for row in rows}
    for seed in range(args.seeds):
        for target, (tau, update_freq) in TARGETS.items():
            for decay, decay_steps in DECAYS.items():
                if (target, decay, str(seed)) in done:
                    continue
                history = learn(tau, update_freq, decay_steps, seed, epochs)
                columns = (history[name] for name in ("env_steps", "val_return", "q_value"))
                new = [[target, decay, str(seed), *values] for values in zip(*columns, strict=True)]
                with args.csv.open("a", newline="") as file:
                    csv.writer(file).writerows(new)
                rows += new
                print(f"{target}, {decay} decay, seed {seed}: return {new[-1][4]:.0f}", flush=True)
    plot(rows)


def plot(rows):
    figure, axes = plt.subplots(2, len(DECAYS), figsize=(12, 8), sharex=True, sharey="row")
    for column, decay in enumerate(DECAYS):
        for target in TARGETS:
            runs = [
                [row[3:] for row in rows if row[:3] == [target, decay, seed]]
                for seed in sorted({row[2] for row in rows})
            ]
            steps, returns, q_values = np.array(runs, float).mean(axis=0).T
            axes[0, column].plot(steps, returns, label=target)
            axes[1, column].plot(steps, q_values, label=target)
        axes[0, column].set_title(f"{decay} decay of epsilon: {DECAYS[decay]:,} steps")
        axes[1, column].set_xlabel("environment steps")
    axes[0, 0].set_ylabel("greedy return, mean of the seeds")
    axes[1, 0].set_ylabel("mean Q of the actions taken")
    axes[1, 0].set_yscale("symlog", linthresh=10)
    for axis in axes[1]:
        axis.axhline(100, color="gray", linestyle=":", linewidth=1)  # 1 / (1 - gamma)
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig("slow_target.png")


if __name__ == "__main__":
    main()
