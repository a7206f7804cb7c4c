"""Measures the pieces of docs/slow-dqn.md in plain Keras and in ours, and prints the page's table.

The plain Keras code is read from the page itself. Both take turns, and a ratio compares two rates
of the same round. A rate is calls per second, or updates per second if one of our calls makes many.
"""

import argparse
import os
import pathlib
import random
import re
import statistics
import time

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # faster for so small a network
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import gymnasium as gym
import keras
import numpy as np

import keras_dqn

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "slow-dqn.md"
BLOCK = re.compile(r"^In plain Keras:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SIZE, BATCH, GAMMA, TAU, K = 10_000, 64, 0.95, 0.001, 64
RNG = np.random.default_rng(0)
STATES = RNG.standard_normal((SIZE + 1, 4)).astype(np.float32)


def transitions():
    """Yields made-up steps, in episodes of 200: observation, action, reward, end, next one."""
    for t in range(SIZE):
        yield STATES[t], t % 2, 1.0, t % 200 == 199, STATES[t + 1]


def plain_keras():
    """Returns the page's pieces by name, as functions without arguments."""
    page = {}
    for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        exec(block, page)
    page["memory"].extend(transitions())
    page["feed_back"](range(SIZE), np.ones(SIZE))
    page["epsilon"] = 0.0

    def learn():
        page["learn"](random.sample(page["memory"], BATCH))
        page["update_target"]()

    return {
        "choose an action": lambda: page["act"](STATES[0]),
        "move the target network alone": page["update_target"],
        "one update, target moved": learn,
        "draw by priority, feed back": lambda: page["feed_back"](page["draw"]()[0], RNG.random(64)),
        "one update by priority, target moved": page["learn_by_priority"],
    }


def ours():
    """Returns our pieces under the same names: a function, and the units of one call."""
    hidden = [keras.layers.Dense(24, "relu") for _ in range(2)]
    agent = keras_dqn.DQN(keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(2)]))
    agent.compile(keras.optimizers.Adam(1e-3), "mse", steps_per_execution=K)
    uniform, prioritized = map(filled, (keras_dqn.ReplayBuffer, keras_dqn.PrioritizedReplayBuffer))
    policy, callbacks = agent.policy(), [keras_dqn.SoftTargetUpdate(TAU)]
    networks, updates = (agent.network, agent.target_network), 32 * K

    def fit(replay):
        data = replay.dataset(BATCH, gamma=GAMMA)
        agent.fit(data, steps_per_epoch=updates, callbacks=callbacks, verbose=0)

    def draw_and_feed_back():
        _, transition, _ = prioritized.sample(BATCH, gamma=GAMMA, num_batches=K)
        prioritized.update_priorities(transition["key"], RNG.random((K, BATCH)))

    return {
        "choose an action": (lambda: policy(STATES[:1]), 1),
        "move the target network alone": (lambda: keras_dqn.soft_update(*networks, TAU), 1),
        "one update, target moved": (lambda: fit(uniform), updates),
        "draw by priority, feed back": (draw_and_feed_back, K),
        "one update by priority, target moved": (lambda: fit(prioritized), updates),
    }


def filled(cls):
    spaces = gym.spaces.Box(-np.inf, np.inf, (4,)), gym.spaces.Discrete(2)
    replay = cls(2 * SIZE, *spaces, seed=0)
    for observation, action, reward, terminated, next_observation in transitions():
        replay.add(observation, action, reward, terminated, False, next_observation)
    return replay


def rate(way, units, seconds):
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        way()
        count += units
    return count / elapsed


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rounds", type=int, default=8, help="default 8")
parser.add_argument("--seconds", type=float, default=1.0, help="of each in a round (default 1)")
args = parser.parse_args()
theirs, here = plain_keras(), ours()
pairs = {name: [] for name in here}
for _ in range(args.rounds + 1):  # the first one compiles
    for name, (way, units) in here.items():
        slow = rate(theirs[name], 1, args.seconds)
        pairs[name].append((slow, rate(way, units, args.seconds)))
print("| Times a second | Plain Keras | Here | Ratio (min..max) |")
print("|---|---|---|---|")
for name, rates in pairs.items():
    columns = list(zip(*rates[1:], strict=True))
    ratios = sorted(fast / slow for slow, fast in rates[1:])
    numbers = [*map(statistics.median, columns), statistics.median(ratios), ratios[0], ratios[-1]]
    slow, fast, ratio, least, most = (f"{n:,.0f}" if n >= 10 else f"{n:.1f}" for n in numbers)
    print(f"| {name} | {slow} | {fast} | {ratio} ({least}..{most}) |")
