"""Measures the microseconds to act, and the collector's own microseconds per environment step.

Acting is one greedy call of the 64-64 MLP for 1, 8 and 64 environments. `agent.act` uses the
current weights of the network; its lower bound is one compiled call of the bare network. A policy
uses the weights of its last `refresh`; its lower bound is that call plus reading the weights. The
collector's own work is the work of `Collector` when network and environment cost almost
nothing, because they return the same two arrays in turns.
"""

import argparse
import os
import pathlib
import time
from types import SimpleNamespace

# One thread for so small a network, as in learner.py.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import gymnasium as gym
import keras
import numpy as np
import race
import tensorflow as tf
from gymnasium.vector import AutoresetMode, VectorEnv

import keras_dqn
from keras_dqn.acting import litert_program

HERE = pathlib.Path(__file__).parent
OBSERVATIONS, ACTIONS = gym.spaces.Box(-1.0, 1.0, (4,)), gym.spaces.Discrete(2)
EPISODE_STEPS = 200
UPDATES_PER_EXECUTION = 64


def acting(envs):
    """Returns the ways to act, each a function without arguments."""
    network = keras.Sequential(
        [
            keras.Input(OBSERVATIONS.shape),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(int(ACTIONS.n)),
        ]
    )
    agent = keras_dqn.DQN(network)
    fast = agent.policy()
    installed, litert_program.Interpreter = litert_program.Interpreter, None
    without = agent.policy()  # as it is where the extra is not installed
    litert_program.Interpreter = installed
    observation = np.random.default_rng(0).uniform(-1, 1, (envs, 4)).astype(np.float32)
    weights = [variable.numpy() for variable in network.variables]
    values = tf.function(lambda inputs: network(inputs, training=False), autograph=False)

    def bare():
        return values(tf.constant(observation)).numpy().argmax(axis=-1)

    def numpy():
        hidden = np.maximum(observation @ weights[0] + weights[1], 0.0)
        hidden = np.maximum(hidden @ weights[2] + weights[3], 0.0)
        return (hidden @ weights[4] + weights[5]).argmax(axis=-1)

    def bare_and_read():
        for variable in network.variables:
            variable.numpy()
        return bare()

    ways = {
        "policy, LiteRT": lambda: fast(observation),
        "policy, without LiteRT": lambda: without(observation),
        "agent.act": lambda: agent.act(observation),
        "bare compiled call": bare,
        "bare call + reading the weights": bare_and_read,
        "NumPy": numpy,
        "policy.refresh": fast.refresh,
    }
    for name, way in ways.items():
        way()
        if name != "policy.refresh":
            assert (way() == numpy()).all(), name
    assert fast.backend == "litert", "LiteRT is not installed: pip install 'keras-dqn[fast]'"
    return ways


class FreeEnv(gym.Env):
    """An environment that costs almost nothing; an episode has 200 steps."""

    observation_space, action_space = OBSERVATIONS, ACTIONS

    def __init__(self):
        self.observations = np.zeros(4, np.float32), np.full(4, 0.5, np.float32)
        self.age = 0

    def reset(self, *, seed=None, options=None):
        return self.observations[0], {}

    def step(self, action):
        self.age += 1
        observation = self.observations[self.age % 2]
        return observation, 1.0, False, self.age % EPISODE_STEPS == 0, {}


class FreeVectorEnv(VectorEnv):
    """The same for E environments; their episodes end one after another."""

    single_observation_space, single_action_space = OBSERVATIONS, ACTIONS

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        zeros = np.zeros((num_envs, 4), np.float32)
        self.observations = zeros, zeros + 0.5
        self.reward = np.ones(num_envs)
        self.no, self.ages = np.zeros(num_envs, bool), np.arange(num_envs)
        self.ends = [self.ages % EPISODE_STEPS == age for age in range(EPISODE_STEPS)]
        self.age = 0

    def reset(self, *, seed=None, options=None):
        return self.observations[0], {}

    def step(self, action):
        self.age += 1
        ends = self.ends[self.age % EPISODE_STEPS]
        return self.observations[self.age % 2], self.reward, self.no, ends, {}


def collecting(envs):
    """Returns the collector with and without `replay.add`, 64 environment steps a call."""
    values = np.zeros((envs, int(ACTIONS.n)), np.float32)
    policy = SimpleNamespace(action_values=lambda observation: values)
    ways = {}
    for name in ("collector", "collector without replay.add"):
        env = FreeEnv() if envs == 1 else FreeVectorEnv(envs)
        replay = keras_dqn.ReplayBuffer.from_env(env, 100_000, seed=0)
        if name != "collector":
            replay.add = lambda *arrays, where: None
        exploration = keras_dqn.EpsilonGreedy(0.05)
        collector = keras_dqn.Collector(env, replay, exploration=exploration, seed=0)
        ways[name] = lambda collector=collector: collector.collect(policy, UPDATES_PER_EXECUTION)
    return ways


def rates_of(ways, rounds, seconds, units=1):
    """Runs all ways in turns and returns the units per second of each way in each round."""
    rates = {name: [] for name in ways}
    calls = {name: 1 for name in ways}
    for name, way in ways.items():
        while elapsed(way, calls[name]) < seconds:
            calls[name] *= 2
    names = list(ways)
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            rates[name].append(units * calls[name] / elapsed(ways[name], calls[name]))
    return rates


def elapsed(way, calls):
    start = time.perf_counter()
    for _ in range(calls):
        way()
    return time.perf_counter() - start


def report(title, rates, baseline):
    print(f"\n{title}")
    microseconds = {name: 1e6 / np.median(of_rounds) for name, of_rounds in rates.items()}
    notes = {name: f"{value:.2f} microseconds" for name, value in microseconds.items()}
    return [
        {"case": title, **row, "microseconds": round(microseconds[row["name"]], 3)}
        for row in race.table(rates, baseline, notes)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 8, 64], help="default 1 8 64")
    parser.add_argument("--rounds", type=int, default=15, help="default 15")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a measurement, default 0.2")
    parser.add_argument("--csv", type=pathlib.Path, default=HERE / "acting.csv")
    args = parser.parse_args()
    rows = []
    for envs in args.envs:
        rates = rates_of(acting(envs), args.rounds, args.seconds)
        title = f"one greedy call, {envs} environments"
        rows += report(title, rates, "bare call + reading the weights")
    for envs in args.envs:
        if envs != 8:
            # Rows in which a vector environment resets itself are no steps: 64 / 63.7.
            rates = rates_of(collecting(envs), args.rounds, args.seconds, UPDATES_PER_EXECUTION)
            rows += report(f"collecting, an environment step, {envs} environments", rates,
                           "collector")  # fmt: skip
    race.write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
