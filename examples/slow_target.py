"""
Title: Slow target networks
Author: The keras_dqn authors
Date created: 2026/11/22
Last modified: 2026/11/24
Description: Fast and slow targets on CartPole, and a tutorial's DQN made to stay; half an hour.
Accelerator: None
"""

import argparse
import csv
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--env-steps", type=int, help="of each run (default 60000 to 120000)")
parser.add_argument("--seeds", type=int, default=10, help="runs of each setting (default 10)")
parser.add_argument("--csv", type=pathlib.Path, default="slow_target.csv", help="to go on from")
args = parser.parse_args()
ONE_STEP = {"double": False, "n_step": 1}
TUTORIAL = ONE_STEP | {"gamma": 0.95, "end_rate": 1e-3, "loss": "mse", "units": 24, "envs": 1}
TUTORIAL |= {"capacity": 10_000, "warmup": 64, "steps": 100_000}
STAYS = TUTORIAL | {"n_step": 5, "gamma": 0.99, "end_rate": 0.0}
RUNS = {
    "1 step, tau 0.05": ONE_STEP | {"tau": 0.05}, "1 step, tau 0.005": ONE_STEP | {"tau": 0.005},
    "tau 1": {"tau": 1.0}, "tau 0.05": {"tau": 0.05}, "hard, every 500": {"tau": 1.0, "freq": 500},
    "tau 0.005": {"tau": 0.005}, "tau 0.001, 120,000 steps": {"tau": 0.001, "steps": 120_000},
    "tau 0.005, epsilon * 0.9": STAYS | {"tau": 0.005, "epsilon": 0.9},
    "tau 0.005, epsilon * 0.995": STAYS | {"tau": 0.005},
    "tau 0.0005, epsilon * 0.9": STAYS | {"tau": 0.0005, "epsilon": 0.9},
    "tau 0.0005, epsilon * 0.995": STAYS | {"tau": 0.0005}, "tutorial": TUTORIAL,
    "+ 5 steps, gamma 0.99": STAYS | {"end_rate": 1e-3}, "+ learning rate to 0": STAYS,
}  # fmt: skip
PANELS = {"1 step": (0, 2), "5 steps, double": (2, 7), "epsilon": (7, 11), "tutorial": (11, 14)}


def learn(seed, tau=0.001, freq=1, double=True, n_step=5, gamma=0.99, end_rate=0.0, loss="auto",
          units=64, envs=8, capacity=50_000, warmup=1000, steps=60_000, epsilon=0.995):  # fmt: skip
    epochs = max(1, (args.env_steps or steps) // 3_072)
    rate = keras.optimizers.schedules.PolynomialDecay(1e-3, epochs * 3_072, end_rate)
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(units, "relu") for _ in range(2)] + [keras.layers.Dense(2)]
    agent = keras_dqn.DQN(keras.Sequential([keras.Input((4,)), *layers]), double=double)
    agent.compile(keras.optimizers.Adam(rate), loss, steps_per_execution=64)
    env, test_env = (gym.make_vec("CartPole-v1", number, "sync") for number in (envs, 10))
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=capacity, seed=seed)
    by_episode = keras_dqn.ExponentialSchedule(1.0, epsilon, 0.01, unit="episodes")
    schedule = by_episode if envs == 1 else keras_dqn.LinearSchedule(1.0, 0.05, 10_000)
    explore = {"exploration": keras_dqn.EpsilonGreedy(schedule), "warmup_steps": warmup}
    collect = keras_dqn.CollectTransitions(env, replay, **explore, seed=seed)
    evaluate = keras_dqn.EvaluatePolicy(test_env, episodes=10, seed=seed + 1_000)
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau, freq), evaluate]
    data = replay.dataset(batch_size=64, gamma=gamma, n_step=n_step)
    run = agent.fit(data, epochs=epochs, steps_per_epoch=3_072, verbose=0, callbacks=callbacks)
    return zip(*[run.history[log] for log in ("env_steps", "val_return", "q_value")], strict=True)


rows = list(csv.reader(args.csv.read_text().splitlines())) if args.csv.exists() else []
for seed, name in [(seed, name) for seed in range(args.seeds) for name in RUNS]:
    if [name, str(seed)] not in [row[:2] for row in rows]:
        rows += (new := [[name, str(seed), *values] for values in learn(seed, **RUNS[name])])
        with args.csv.open("a", newline="") as file:
            csv.writer(file).writerows(new)
        print(f"{name}, seed {seed}: return {new[-1][3]:.0f}", flush=True)

figure, axes = plt.subplots(4, 2, figsize=(10, 12), sharex="row", layout="constrained")
for panels, (title, where) in zip(axes, PANELS.items(), strict=True):
    for name in list(RUNS)[slice(*where)]:
        runs = [[row[2:] for row in rows if row[:2] == [name, str(s)]] for s in range(args.seeds)]
        steps, *curves = np.percentile(np.array(runs, float), [25, 50, 75], axis=0).T
        for panel, curve in zip(panels, curves, strict=True):
            panel.plot(steps[:, 1], curve[:, 1], label=name)
            panel.fill_between(steps[:, 1], curve[:, 0], curve[:, 2], alpha=0.2)
    panels[0].axhline(475, color="black", linestyle=":")
    panels[0].set(title=f"{title}: greedy return", xlabel="environment steps", ylim=(0, 520))
    panels[1].set(title=f"{title}: mean Q", xlabel="environment steps", ylim=(-20, None))
    panels[1].legend(fontsize="small")
for panel in axes[:2, 1]:
    panel.set_yscale("symlog", linthresh=100)
figure.savefig("slow_target.png")
