"""Each part of the family alone, added to the preset `minatar`.

    python benchmarks/learning.py --env MinAtar/Asterix-v0 --preset minatar+munchausen --seeds 3
    python benchmarks/minatar_parts.py      # the frame rate of each, on one core, in turns

A part changes nothing else, except that Munchausen's target stands in place of double Q-learning.
The distributions have 51 atoms, bins or quantiles, and the head of `dueling` and `noisy` is one
layer on the hidden layer of the network. An actor with noisy layers has no other exploration. The
runs in `benchmarks/learning/` have the seeds 100 to 102, because they chose the parts of
`presets.minatar_all`. Frame rates are ratios to the preset `minatar` in the same round, median and
range over the rounds.
"""

import argparse
import csv
import functools
import os
import pathlib
import statistics
import time

if __name__ == "__main__":  # read when TensorFlow is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")

import gymnasium as gym
import keras
import presets

import keras_dqn

V_MIN, V_MAX = 0.0, 30.0  # of C51 and HL-Gauss, which clip targets outside
PARTS = (
    "three_steps",
    "munchausen",
    "dueling",
    "noisy",
    "prioritized",
    "epsilon_z",
    "c51",
    "hl_gauss",
    "quantiles",
)


def minatar_with(part, env_id, seed, env_steps):
    """Returns the run of `presets.minatar` with one part of `PARTS`, or without if it is `None`."""
    presets.register_minatar(env_id)
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="sync")
    test_env = gym.make_vec(env_id, num_envs=10, vectorization_mode="sync")
    updates = (env_steps - 5_000) // 8
    agent = make_agent(part, env.single_observation_space, int(env.single_action_space.n))
    agent.compile(presets.adam(3e-4, updates, epsilon=1e-3, end=0.3), steps_per_execution=16)
    if part == "prioritized":
        beta = keras_dqn.LinearSchedule(0.4, 1.0, updates)
        replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, 25_000, beta=beta, seed=seed)
    else:
        replay = keras_dqn.ReplayBuffer.from_env(env, capacity=25_000, seed=seed)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=make_exploration(part),
        env_steps_per_update=8,
        warmup_steps=5_000,
        max_env_steps=env_steps,
        seed=seed,
    )
    data = replay.dataset(batch_size=64, gamma=0.99, n_step=3 if part == "three_steps" else 1)
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.01)]
    return presets.Run(
        agent, data, callbacks, test_env, updates, epoch_updates=6_250, max_episode_steps=10_000
    )


def make_agent(part, observation_space, num_actions):
    cnn, dqn_layers = keras_dqn.networks.minatar_cnn, keras_dqn.layers
    if part in ("dueling", "noisy"):
        torso = cnn(observation_space, None, layer_normalization=True)
        head = dqn_layers.DuelingHead if part == "dueling" else dqn_layers.NoisyDense
        images = keras.Input(observation_space.shape, dtype="bool")
        return keras_dqn.DQN(keras.Sequential([images, torso, head(num_actions)]), double=True)
    if part in ("c51", "hl_gauss", "quantiles"):
        network = cnn(observation_space, (num_actions, 51), layer_normalization=True)
        if part == "c51":
            return keras_dqn.CategoricalDQN(network, v_min=V_MIN, v_max=V_MAX, double=True)
        if part == "hl_gauss":
            return keras_dqn.HLGaussDQN(network, v_min=V_MIN, v_max=V_MAX, double=True)
        return keras_dqn.QuantileDQN(network, double=True)
    network = cnn(observation_space, num_actions, layer_normalization=True)
    if part == "munchausen":
        return keras_dqn.DQN(network, munchausen=keras_dqn.Munchausen())
    return keras_dqn.DQN(network, double=True)


def make_exploration(part):
    epsilon = keras_dqn.LinearSchedule(1.0, 0.02, 100_000)
    if part == "noisy":
        return keras_dqn.NoisyGreedy()
    if part == "epsilon_z":
        return keras_dqn.EpsilonZGreedy(epsilon)
    return keras_dqn.EpsilonGreedy(epsilon)


PRESETS = {f"minatar+{part}": functools.partial(minatar_with, part) for part in PARTS}


class Trainer:
    """Trains one run on, some updates at a time."""

    def __init__(self, preset):
        keras.utils.set_random_seed(0)
        self.run, self.frames = preset("MinAtar/Asterix-v0", 0, 10_000_000), 0
        self.rate(5_000)

    def rate(self, updates):
        """Returns the frames a second of some updates with their actors."""
        before, start = self.frames, time.perf_counter()
        history = self.run.agent.fit(
            self.run.data, steps_per_epoch=updates, callbacks=self.run.callbacks, verbose=0
        )
        self.frames = history.history["env_steps"][-1]
        return (self.frames - before) / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="default 7")
    parser.add_argument("--updates", type=int, default=2_000, help="in each round (default 2000)")
    parser.add_argument("--csv", type=pathlib.Path, help="default benchmarks/minatar_parts.csv")
    args = parser.parse_args()
    every = {"minatar": presets.minatar, **PRESETS, "minatar_all": presets.minatar_all}
    trainers = {name: Trainer(preset) for name, preset in every.items()}
    rates = {name: [] for name in every}
    for _ in range(args.rounds):
        for name, trainer in trainers.items():
            rates[name].append(trainer.rate(args.updates))
    path = args.csv or pathlib.Path(__file__).with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["preset", "frames_per_second", "ratio", "least", "largest"])
        for name, of_preset in rates.items():
            ratios = [one / base for one, base in zip(of_preset, rates["minatar"], strict=True)]
            numbers = [statistics.median(ratios), min(ratios), max(ratios)]
            row = [name, round(statistics.median(of_preset)), *(round(one, 2) for one in numbers)]
            print(*row, sep="\t")
            writer.writerow(row)


if __name__ == "__main__":
    main()
