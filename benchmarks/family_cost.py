"""Measures what each member of the DQN family costs, relative to plain DQN on the same network.

A learner on a filled buffer, MLP 64-64, batch 64, K=64: updates a second, as the ratio of the same
round to plain DQN, median and range over the rounds. And a policy's call for 8 environments, in
microseconds, with its backend; a noisy network also under `NoisyGreedy`.
"""

import argparse
import csv
import os
import pathlib
import statistics
import time

# One thread for so small a network, as in learner.py.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import family
import gymnasium as gym
import keras
import numpy as np

import keras_dqn

HERE = pathlib.Path(__file__).parent
NUM_INPUTS, NUM_ACTIONS, EXECUTION = 8, 4, 64
PARTS = {
    "DQN": {"plain"},
    "double": {"double"},
    "Munchausen": {"munchausen"},
    "CQL": {"plain", "conservative"},
    "dueling head": {"plain", "dueling"},
    "noisy layers": {"plain", "noisy"},
    "priorities": {"plain", "prioritized"},
    "C51, 51 atoms": {"plain", "c51"},
    "HL-Gauss, 51 bins": {"plain", "hl_gauss"},
    "QR-DQN, 51 quantiles": {"plain", "quantiles"},
    "IQN, 8 fractions": {"plain", "iqn"},
    "Rainbow": {"double", *family.PARTS["Rainbow"]},
    "all with IQN": family.PARTS["all with IQN"],
}


def replay_of(parts):
    space = gym.spaces.Box(-9.0, 9.0, (NUM_INPUTS,))
    kind = keras_dqn.PrioritizedReplayBuffer if "prioritized" in parts else keras_dqn.ReplayBuffer
    replay = kind(20_000, space, gym.spaces.Discrete(NUM_ACTIONS), seed=0)
    rng = np.random.default_rng(0)
    observation = rng.normal(size=NUM_INPUTS)
    for step in range(20_000):
        following = rng.normal(size=NUM_INPUTS)
        action, ends = rng.integers(NUM_ACTIONS), step % 200 == 199
        replay.add(observation, action, rng.normal(), ends, False, following)
        observation = rng.normal(size=NUM_INPUTS) if ends else following
    return replay


class Learner:
    def __init__(self, parts):
        keras.utils.set_random_seed(0)
        self.agent = family.make_agent(parts, NUM_INPUTS, NUM_ACTIONS, units=64)
        self.agent.compile(keras.optimizers.Adam(1e-3), steps_per_execution=EXECUTION)
        self.data = replay_of(parts).dataset(64)
        self.update = keras_dqn.SoftTargetUpdate(0.005)
        self.rate(1)

    def rate(self, executions):
        """Returns updates a second."""
        updates, start = executions * EXECUTION, time.perf_counter()
        self.agent.fit(self.data, steps_per_epoch=updates, verbose=0, callbacks=[self.update])
        return updates / (time.perf_counter() - start)


def microseconds(call, calls=2_000):
    call()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls * 1e6)
    return min(times)


def acting(agent, parts):
    """Returns the microseconds of a call, greedy and with noise, and the backend."""
    policy, rng = agent.policy(), np.random.default_rng(0)
    observation = rng.normal(size=(8, NUM_INPUTS)).astype(np.float32)
    noisy = ""
    if "noisy" in parts:
        noisy = round(microseconds(lambda: policy.noisy_action_values(observation, rng)), 1)
    greedy = microseconds(lambda: policy.action_values(observation))
    return round(greedy, 1), noisy, policy.backend


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="default 9")
    parser.add_argument("--executions", type=int, default=16, help="in each round (default 16)")
    parser.add_argument("--csv", type=pathlib.Path, default=HERE / "family_cost.csv")
    args = parser.parse_args()
    learners = {name: Learner(parts) for name, parts in PARTS.items()}
    rates = {name: [] for name in PARTS}
    for _ in range(args.rounds):
        for name, learner in learners.items():
            rates[name].append(learner.rate(args.executions))
    rows = []
    for name, parts in PARTS.items():
        ratios = [one / plain for one, plain in zip(rates[name], rates["DQN"], strict=True)]
        rate, ratio = statistics.median(rates[name]), statistics.median(ratios)
        row = [name, round(rate), round(ratio, 2), round(min(ratios), 2), round(max(ratios), 2)]
        rows.append([*row, *acting(learners[name].agent, parts)])
        print(*rows[-1], sep="\t", flush=True)
    with args.csv.open("w", newline="") as file:
        columns = ["name", "updates_per_second", "ratio", "least", "largest"]
        columns += ["policy_us", "noisy_policy_us", "backend"]
        csv.writer(file).writerows([columns, *rows])


if __name__ == "__main__":
    main()
