"""
Title: Prioritized replay on the blind cliffwalk
Author: The keras_dqn authors
Date created: 2026/11/22
Last modified: 2026/11/24
Description: With priorities, an agent learns a reward after many steps in far fewer updates.
Accelerator: None
"""

import argparse
import itertools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--states", type=int, default=12, help="length of the walk")
parser.add_argument("--max-updates", type=int, default=40_000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--plot", default="prioritized_replay.png")
args = parser.parse_args()
N, GAMMA, UPDATES = args.states, 1 - 1 / args.states, 64
SPACES = gym.spaces.Discrete(N), gym.spaces.Discrete(2)


def fill(replay):
    """Plays all 2**N sequences of actions; the right one alternates, a wrong one falls off."""
    for actions in itertools.product((0, 1), repeat=N):
        for state, action in enumerate(actions):
            right, last = action == state % 2, state == N - 1
            after = min(state + 1, N - 1)
            replay.add(state, action, float(right and last), last or not right, False, after)
            if not right:
                break


def train(replay):
    """Learns a table of Q from zeros; returns updates and the table's mean squared error."""
    table = keras.layers.Embedding(N, 2, "zeros")
    agent = keras_dqn.DQN(keras.Sequential([keras.Input((), dtype="int32"), table]))
    agent.compile(keras.optimizers.SGD(0.25), "mse", steps_per_execution=UPDATES)
    states = np.arange(N)
    true = np.where(np.eye(2)[states % 2] == 1, GAMMA ** (N - 1 - states)[:, None], 0.0)
    updates, errors = [0], [float((true**2).mean())]

    def measure(epoch, logs):
        updates.append(int(agent.update_count))
        errors.append(float(((table.get_weights()[0] - true) ** 2).mean()))
        agent.stop_training = errors[-1] < 1e-3

    agent.fit(
        replay.dataset(batch_size=4, gamma=GAMMA),
        steps_per_epoch=UPDATES,
        epochs=args.max_updates // UPDATES,
        callbacks=[
            keras_dqn.SoftTargetUpdate(tau=1.0),
            keras.callbacks.LambdaCallback(on_epoch_end=measure),
        ],
        verbose=0,
    )
    return updates, errors


capacity = 4 * 2**N
buffers = {
    "uniform": keras_dqn.ReplayBuffer(capacity, *SPACES, seed=args.seed),
    "rank-based": keras_dqn.PrioritizedReplayBuffer(
        capacity, *SPACES, variant="rank", seed=args.seed
    ),
    "proportional": keras_dqn.PrioritizedReplayBuffer(capacity, *SPACES, seed=args.seed),
}
for name, replay in buffers.items():
    fill(replay)
    updates, errors = train(replay)
    print(f"{name}: error {errors[-1]:.1e} after {updates[-1]:,} updates")
    plt.plot(updates, errors, label=name)
plt.axhline(1e-3, color="gray", linestyle=":")
plt.gca().set(xlabel="updates of 4 transitions", ylabel="mean squared error of Q", yscale="log")
plt.title(f"Blind cliffwalk of {N} states, {len(replay):,} transitions stored")
plt.legend()
plt.savefig(args.plot, dpi=120)
print(f"plot: {args.plot}")
