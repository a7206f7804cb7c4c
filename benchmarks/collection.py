"""Measures environment steps a second of a collector, by kind and number of environments.

A 128-128 MLP acts on CartPole, and the network of the first DQN paper on Pong from the screen. The
collector's own share is the time outside of `env.step`: acting, exploring and storing.
CartPole needs nothing more; for Pong `pip install ale-py opencv-python`, and for the kind `envpool`
`pip install envpool`. Kinds whose package is missing are left out, and a line says so.
"""

import argparse
import functools
import importlib.util
import os
import time
import warnings

# One thread for so small a network, as in learner.py.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import gymnasium as gym
import keras
import numpy as np

import keras_dqn

PONG = {"repeat_action_probability": 0.25, "noop_max": 0, "use_fire_reset": False}


def cartpole(kind, num_envs):
    if kind == "envpool":
        return envpool("CartPole-v1", num_envs)
    return gym.make_vec("CartPole-v1", num_envs, kind)


def pong(kind, num_envs):
    if kind == "envpool":
        options = {"repeat_action_probability": 0.25, "noop_max": 1, "img_height": 84}
        return envpool("Pong-v5", num_envs, **options)
    import ale_py

    gym.register_envs(ale_py)
    if kind == "vector_entry_point":
        return gym.make_vec("ALE/Pong-v5", num_envs, kind, **PONG)
    wrappers = [
        functools.partial(gym.wrappers.AtariPreprocessing, noop_max=0),
        functools.partial(gym.wrappers.FrameStackObservation, stack_size=4),
    ]
    options = {"frameskip": 1, "repeat_action_probability": 0.25}
    return gym.make_vec("ALE/Pong-v5", num_envs, kind, wrappers=wrappers, **options)


def envpool(name, num_envs, **options):
    import envpool

    return envpool.make(name, env_type="gymnasium", num_envs=num_envs, **options)


ENVIRONMENTS = {"CartPole-v1": (cartpole, []), "ALE/Pong-v5": (pong, ["ale_py", "cv2"])}
KINDS = ("sync", "async", "vector_entry_point", "envpool")


def network_of(env):
    space, num_actions = env.single_observation_space, int(env.single_action_space.n)
    if len(space.shape) == 1:
        return keras_dqn.networks.mlp(space, num_actions)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(space.shape),
            layers.Permute((2, 3, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 8, 4, activation="relu"),
            layers.Conv2D(32, 4, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(256, "relu"),
            layers.Dense(num_actions),
        ]
    )


class Timed:
    """Adds the seconds that `env.step` takes."""

    def __init__(self, env):
        self.seconds, self._step = 0.0, env.step

    def __call__(self, action):
        start = time.perf_counter()
        result = self._step(action)
        self.seconds += time.perf_counter() - start
        return result


def rate(env, seconds):
    """Returns environment steps a second, and the share of the time outside of `env.step`."""
    stack = 4 if len(env.single_observation_space.shape) == 3 else None
    replay = keras_dqn.ReplayBuffer.from_env(env, 20_000, frame_stack=stack, seed=0)
    explore = keras_dqn.EpsilonGreedy(0.05)
    env.step = timed = Timed(env)
    collector = keras_dqn.Collector(env, replay, exploration=explore, seed=0)
    policy = keras_dqn.DQN(network_of(env)).policy()
    collector.collect(policy, 2 * env.num_envs)  # makes the policy's program
    timed.seconds, steps, start = 0.0, collector.env_steps, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        collector.collect(policy, max(64, env.num_envs))
    return (collector.env_steps - steps) / elapsed, 1 - timed.seconds / elapsed


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="default: all")
    parser.add_argument("--names", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--rounds", type=int, default=3, help="in turns (default 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement (default 2)")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # of envpool: about seeds, and precisions of its spaces
    for name in args.names:
        make, packages = ENVIRONMENTS[name]
        found = {kind: [] for kind in args.kinds}
        for kind in args.kinds:
            needed = [*packages, "envpool"] if kind == "envpool" else packages
            missing = [package for package in needed if importlib.util.find_spec(package) is None]
            if missing:
                print(f"{name}, {kind}: left out, needs {', '.join(missing)}")
                del found[kind]
        for num_envs in args.envs:
            measured = {kind: [] for kind in found}
            for _ in range(args.rounds):
                for kind, results in measured.items():
                    env = make(kind, num_envs)
                    results.append(rate(env, args.seconds))
                    env.close()
            for kind, results in measured.items():
                rates, shares = np.array(results).T
                print(
                    f"{name}, {kind}, {num_envs} environments: {np.median(rates):,.0f} steps/s "
                    f"({rates.min():,.0f}..{rates.max():,.0f}), own share {np.median(shares):.0%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
