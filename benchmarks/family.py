"""Trains each member of the DQN family on LunarLander: each addition alone, and all together.

The base is the quick start: double Q-learning, 5-step returns, 128-128. Each run (a name and a
seed) is a process and writes one row per 10,000 environment steps when it ends. Rows that exist are
not run again. Needs `pip install "gymnasium[box2d]"`.

    python benchmarks/family.py --jobs 2      # all runs that are missing, then table and picture
    python benchmarks/family.py --name c51 --seed 0      # one run
"""

import argparse
import concurrent.futures
import csv
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
CSV, PICTURE = HERE / "family.csv", HERE.parent / "docs" / "family.png"
COLUMNS = ["name", "seed", "env_steps", "return"]
# Outer values of the distributions: a crash pays -100, a landing 100 and up to 140 on its way.
V_MIN, V_MAX = -300.0, 300.0
PARTS = {
    "double DQN": {},
    "+ prioritized": {"prioritized"},
    "+ dueling": {"dueling"},
    "+ noisy": {"noisy"},
    "+ Munchausen": {"munchausen"},
    "C51": {"c51"},
    "HL-Gauss": {"hl_gauss"},
    "QR-DQN": {"quantiles"},
    "IQN": {"iqn"},
    "Rainbow": {"c51", "prioritized", "dueling", "noisy"},
    "all with IQN": {"iqn", "prioritized", "dueling", "noisy", "munchausen"},
}


def make_agent(parts, num_inputs, num_actions, units=128):
    """Returns an agent with these parts, on a network with two hidden layers."""
    import keras

    import keras_dqn

    layers = keras_dqn.layers
    num_outputs = 51 if parts & {"c51", "hl_gauss", "quantiles"} else 1
    dense = layers.NoisyDense if "noisy" in parts else keras.layers.Dense
    torso = [keras.Input((num_inputs,)), keras.layers.Dense(units, "relu")]
    if "dueling" in parts:
        head = [
            layers.DuelingHead(
                num_actions, num_outputs, hidden_units=units, noisy=dense is layers.NoisyDense
            )
        ]
    else:
        head = [dense(units, activation="relu"), dense(num_actions * num_outputs)]
        if num_outputs > 1:
            head.append(keras.layers.Reshape((num_actions, num_outputs)))
    if "munchausen" in parts:
        rule = {"munchausen": keras_dqn.Munchausen()}
    else:
        rule = {"double": "plain" not in parts}
    if "conservative" in parts:
        rule["conservative"] = 1.0
    if "iqn" in parts:
        return keras_dqn.ImplicitQuantileDQN(
            keras.Sequential(torso), keras.Sequential(head), **rule
        )
    network = keras.Sequential(torso + head)
    if "c51" in parts:
        return keras_dqn.CategoricalDQN(network, v_min=V_MIN, v_max=V_MAX, **rule)
    if "hl_gauss" in parts:
        return keras_dqn.HLGaussDQN(network, v_min=V_MIN, v_max=V_MAX, **rule)
    if "quantiles" in parts:
        return keras_dqn.QuantileDQN(network, **rule)
    return keras_dqn.DQN(network, **rule)


def train(parts, seed, env_steps, env_id="LunarLander-v3"):
    """Returns the mean greedy returns of 20 episodes after every 10,000 environment steps."""
    import gymnasium as gym
    import keras

    import keras_dqn

    keras.utils.set_random_seed(seed)
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="sync")
    (num_inputs,), num_actions = env.single_observation_space.shape, int(env.single_action_space.n)
    agent = make_agent(parts, num_inputs, num_actions)
    learning_rate = keras.optimizers.schedules.PolynomialDecay(1e-3, env_steps - 1_000, 0.0)
    agent.compile(keras.optimizers.Adam(learning_rate, clipnorm=10.0), steps_per_execution=64)
    if "prioritized" in parts:
        beta = keras_dqn.LinearSchedule(0.4, 1.0, env_steps)
        replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, 100_000, beta=beta, seed=seed)
    else:
        replay = keras_dqn.ReplayBuffer.from_env(env, 100_000, seed=seed)
    epsilon = keras_dqn.LinearSchedule(1.0, 0.05, 10_000)
    explore = keras_dqn.NoisyGreedy() if "noisy" in parts else keras_dqn.EpsilonGreedy(epsilon)
    tests = gym.make_vec(env_id, num_envs=20, vectorization_mode="sync")
    history = agent.fit(
        replay.dataset(batch_size=64, gamma=0.99, n_step=5),
        epochs=env_steps // 10_000,
        steps_per_epoch=10_000,
        verbose=0,
        callbacks=[
            keras_dqn.CollectTransitions(
                env, replay, exploration=explore, max_env_steps=env_steps, seed=seed
            ),
            keras_dqn.SoftTargetUpdate(0.005),
            keras_dqn.EvaluatePolicy(tests, episodes=20, seed=seed + 1_000),
        ],
    )
    return list(zip(history.history["env_steps"], history.history["val_return"], strict=True))


def run_in_a_process(name, seed, env_steps):
    one_core = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    command = [sys.executable, __file__, "--name", name, "--seed", str(seed)]
    command += ["--env-steps", str(env_steps)]
    environment = {**os.environ, **one_core, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(command, env=environment, check=True)


def rows_of():
    if not CSV.exists():
        CSV.write_text(",".join(COLUMNS) + "\n")
    return list(csv.DictReader(CSV.open()))


def show(seeds):
    """Prints the final returns and draws the learning curves."""
    import matplotlib.pyplot as plt
    import numpy as np

    rows = rows_of()
    columns = 3
    figure, axes = plt.subplots(
        -(-(len(PARTS) - 1) // columns), columns, figsize=(11, 11), sharex=True, sharey=True
    )
    curves = {}
    for name in PARTS:
        runs = [
            [(float(row["env_steps"]), float(row["return"])) for row in rows
             if (row["name"], row["seed"]) == (name, str(seed))] for seed in seeds
        ]  # fmt: skip
        curves[name] = np.array([run for run in runs if run])
        final = curves[name][:, -1, 1]
        print(f"{name:14} {final.mean():7.1f}   " + " ".join(f"{value:7.1f}" for value in final))
    base, *others = PARTS
    for axis in axes.flat[len(others) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, others, strict=False):
        for curve, color in ((curves[base], "0.6"), (curves[name], "tab:blue")):
            steps, returns = curve[0, :, 0] / 1_000, curve[:, :, 1]
            axis.plot(
                steps, returns.mean(axis=0), color=color, label=base if color == "0.6" else name
            )
            axis.fill_between(
                steps, returns.min(axis=0), returns.max(axis=0), color=color, alpha=0.2
            )
        axis.axhline(200, color="0.8", linewidth=1)
        axis.set_title(name)
        axis.tick_params(labelbottom=True)
    axes.flat[0].legend(loc="lower right")
    figure.supxlabel("thousand environment steps")
    figure.supylabel("greedy return, mean of 20 episodes; mean, least and largest of three seeds")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=80)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--name", choices=PARTS, help="run only this one, with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to SEEDS - 1 (default 3)")
    parser.add_argument("--env-steps", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (default 2)")
    args = parser.parse_args()
    if args.name:
        curve = train(set(PARTS[args.name]), args.seed, args.env_steps)
        with CSV.open("a", newline="") as file:
            csv.writer(file).writerows(
                [args.name, args.seed, int(s), round(r, 1)] for s, r in curve
            )
        print(f"{args.name}, seed {args.seed}: return {curve[-1][1]:.1f}", flush=True)
        return
    done = {(row["name"], row["seed"]) for row in rows_of()}
    jobs = [(name, seed, args.env_steps) for seed in range(args.seeds) for name in PARTS
            if (name, str(seed)) not in done]  # fmt: skip
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda job: run_in_a_process(*job), jobs))
    show(range(args.seeds))


if __name__ == "__main__":
    main()
