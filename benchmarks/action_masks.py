"""What an action mask costs: updates, adds and actions a second with it, over those without it.

    python benchmarks/action_masks.py

Observations have 8 numbers, there are 6 actions, the network is 128-128. Both are measured in
turns, so that each ratio is of neighbours in time. One environment, and eight.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import keras
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

import keras_dqn

BOX, ACTIONS = Box(-10, 10, (8,), np.float32), 6
MASKED = Dict(observation=BOX, action_mask=Box(0, 1, (ACTIONS,), np.int8))


class Contender:
    def __init__(self, masked, num_envs):
        self.num_envs, rng = num_envs, np.random.default_rng(0)
        space = MASKED if masked else BOX
        self.replay = keras_dqn.ReplayBuffer(20_000, space, Discrete(ACTIONS), num_envs=num_envs)
        network = keras_dqn.networks.mlp(BOX, ACTIONS)
        self.agent = keras_dqn.DQN(
            network, double=True, action_mask="action_mask" if masked else None
        )
        self.agent.compile(keras.optimizers.Adam(1e-3), steps_per_execution=64)
        self.policy = self.agent.policy()
        self.data = self.replay.dataset(64, n_step=3)
        self.follow = keras_dqn.SoftTargetUpdate(0.005)
        self.observations = []
        for _ in range(1_000):
            observation = rng.normal(size=(num_envs, 8)).astype(np.float32)
            if masked:
                mask = rng.integers(2, size=(num_envs, ACTIONS)).astype(np.int8)
                mask[:, 0] = 1
                observation = {"observation": observation, "action_mask": mask}
            self.observations.append(observation)

    def add(self):
        """Steps a second."""
        action, no = np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs, bool)
        reward = np.ones(self.num_envs)
        pairs = zip(self.observations[:-1], self.observations[1:], strict=True)
        began = time.perf_counter()
        for before, after in pairs:
            self.replay.add(before, action, reward, no, no, after)
        return 999 * self.num_envs / (time.perf_counter() - began)

    def act(self):
        """Greedy choices of all environments a second, by epsilon-greedy exploration."""
        explore, rng = keras_dqn.EpsilonGreedy(0.1), np.random.default_rng(0)
        began = time.perf_counter()
        for observation in self.observations:
            explore(self.policy.action_values(observation), rng)
        return 1_000 / (time.perf_counter() - began)

    def update(self):
        """Updates a second in `fit`."""
        began = time.perf_counter()
        self.agent.fit(
            self.data, epochs=1, steps_per_epoch=4_096, callbacks=[self.follow], verbose=0
        )
        return 4_096 / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="default 9")
    args = parser.parse_args()
    print("| environments | what | without a mask | with it, over without |\n|---|---|---|---|")
    for num_envs in (1, 8):
        plain, masked = Contender(False, num_envs), Contender(True, num_envs)
        for what in ("add", "act", "update"):
            pairs = []
            for _ in range(args.rounds + 1):
                pairs.append([getattr(contender, what)() for contender in (plain, masked)])
            ratios = [theirs / ours for ours, theirs in pairs[1:]]  # the first one compiles
            rate = statistics.median(ours for ours, _ in pairs[1:])
            print(
                f"| {num_envs} | {what} | {rate:,.0f} a second "
                f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
