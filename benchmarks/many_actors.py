"""Measures collection on Ray: throughput by workers, the cost of a block, memory and start.

`throughput` collects without learning, from environments that only wait (1, 5 or 20 ms a step, as a
simulator on another core or machine), with 1 to 16 workers of one environment. `blocks` sends
blocks of several sizes from environments that cost nothing, into one buffer. `workers` measures
the start and the memory of workers. Run it on an idle machine:

    python benchmarks/many_actors.py --parts workers blocks throughput
"""

import argparse
import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import gymnasium as gym
import keras
import numpy as np
import ray
from gymnasium.vector import AutoresetMode, VectorEnv

import keras_dqn
from keras_dqn.integrations.ray import RayCollectTransitions

BOX, IMAGE = gym.spaces.Box(-1.0, 1.0, (4,)), gym.spaces.Box(0, 255, (84, 84), np.uint8)


class Waits(gym.Env):
    """An environment whose step takes a fixed time, and no CPU of this machine."""

    observation_space, action_space = BOX, gym.spaces.Discrete(2)

    def __init__(self, seconds):
        self.seconds, self.steps = seconds, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(4, np.float32), {}

    def step(self, action):
        time.sleep(self.seconds)
        self.steps += 1
        return np.full(4, self.steps / 1_000, np.float32), 1.0, False, self.steps == 200, {}


class Free(VectorEnv):
    """Environments that return the same two arrays in turns."""

    def __init__(self, num_envs, space):
        self.num_envs, self.single_observation_space = num_envs, space
        self.single_action_space = gym.spaces.Discrete(2)
        self.observation_space = gym.vector.utils.batch_space(space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.arrays = [np.full((num_envs, *space.shape), i, space.dtype) for i in (0, 1)]
        self.rewards, self.no = np.ones(num_envs), np.zeros(num_envs, bool)
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self.arrays[0], {}

    def step(self, actions):
        self.steps += 1
        return self.arrays[self.steps % 2], self.rewards, self.no, self.no, {}


def collector(make_env, workers, envs, block_size, capacity=100_000):
    """Returns the collector of a new callback, its buffer, and an agent's policy."""
    replay = keras_dqn.ReplayBuffer.from_env(make_env(), capacity, num_envs=workers * envs)
    shape = replay.observation_space.shape
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(64, "relu"), keras.layers.Dense(2)]
    network = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), *layers])
    collect = RayCollectTransitions(
        make_env,
        replay,
        num_workers=workers,
        exploration=keras_dqn.EpsilonGreedy(0.1),
        block_size=block_size,
    )
    return collect.collector, replay, keras_dqn.DQN(network).policy()


def rate(source, policy, seconds, share):
    """Returns steps a second, blocks a second, and CPU seconds of this process for a block."""
    while source.env_steps < 2 * source.plan.num_workers * share:  # all have begun
        source.collect(policy, share)
    steps, began, cpu = source.env_steps, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        source.collect(policy, share)
    wall = time.perf_counter() - began
    steps, cpu = source.env_steps - steps, time.process_time() - cpu
    return steps / wall, cpu / (steps / share)


def throughput(args):
    print(
        "\n| step | workers | steps a second | of the ideal | over one worker |"
        "\n|---|---|---|---|---|"
    )
    for milliseconds in (20, 5, 1):
        single = None
        for workers in (1, 2, 4, 8, 16):
            share = max(1, 160 // milliseconds)  # a block every 160 ms
            rates = []
            for _ in range(args.rounds):
                make = lambda seconds=milliseconds / 1_000: Waits(seconds)  # noqa: E731
                source, _, policy = collector(make, workers, 1, share)
                rates.append(rate(source, policy, args.seconds, share)[0])
                source.close()
            median = statistics.median(rates)
            single = single or median
            ideal = median / (workers * 1_000 / milliseconds)
            print(
                f"| {milliseconds} ms | {workers} "
                f"| {median:.0f} ({min(rates):.0f}..{max(rates):.0f}) "
                f"| {ideal:.2f} | {median / single:.2f} |",
                flush=True,
            )


def blocks(args):
    print("\n| observation | block | transitions a second | CPU a block | CPU a transition |")
    print("|---|---|---|---|---|")
    for name, space, envs in (("4 floats", BOX, 16), ("84 x 84 bytes", IMAGE, 4)):
        for size in (16, 64, 256, 1_024, 4_096):
            if envs * 2 > size or (size * IMAGE.shape[0] > 10**6 and space is IMAGE):
                continue
            rates, costs = [], []
            for _ in range(args.rounds):
                source, _, policy = collector(
                    lambda e=envs, s=space: Free(e, s), 2, envs, size, 20_000
                )
                steps, cost = rate(source, policy, args.seconds, size)
                source.close()
                rates.append(steps)
                costs.append(cost)
            steps, cost = statistics.median(rates), statistics.median(costs)
            print(
                f"| {name} | {size} | {steps:,.0f} ({min(rates):,.0f}..{max(rates):,.0f}) "
                f"| {cost * 1e3:.2f} ms | {cost / size * 1e6:.1f} us |",
                flush=True,
            )


def memory_of(pid):
    """Returns resident and proportional megabytes of a process."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines}
    return sizes["Rss:"], sizes["Pss:"]


def workers(args):
    print("\n| worker | start to first block | resident | proportional |\n|---|---|---|---|")
    for name, keeps in (("without Keras", True), ("with Keras", False)):
        for count in (1, 4):
            source, _, policy = collector(lambda: gym.make("CartPole-v1"), count, 1, 8)
            if not keeps:
                policy.host_policy = _refuse
            began = time.perf_counter()
            source.collect(policy, 8 * count)  # a block of each
            source.receive_all()
            seconds = time.perf_counter() - began
            sizes = np.array([memory_of(source._workers.process(w)["pid"]) for w in range(count)])
            source.close()
            resident, proportional = sizes.mean(axis=0)
            print(
                f"| {name}, {count} at once | {seconds:.2f} s | {resident:.0f} MB "
                f"| {proportional:.0f} MB |",
                flush=True,
            )


def _refuse(observation, noisy):
    raise NotImplementedError("asked for by the benchmark")


PARTS = {"workers": workers, "blocks": blocks, "throughput": throughput}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (default 3)")
    args = parser.parse_args()
    ray.init("local", include_dashboard=False, log_to_driver=False)
    for part in args.parts:
        PARTS[part](args)
