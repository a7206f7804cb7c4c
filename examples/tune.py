"""
Title: A search over settings
Author: The keras_dqn authors
Date created: 2026/11/23
Last modified: 2026/11/24
Description: KerasTuner searches the learning rate, tau and n-step with the best greedy return.
Accelerator: None
"""
# python -m pip install ".[tune]"

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import keras_tuner

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--trials", type=int, default=6, help="number of runs (default 6)")
parser.add_argument("--epochs", type=int, default=6, help="of 2048 updates (default 6)")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()


class CartPole(keras_tuner.HyperModel):
    def build(self, hp):
        hidden = [keras.layers.Dense(128, "relu") for _ in range(2)]
        network = keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(2)])
        agent = keras_dqn.DQN(network, double=True)
        learning_rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
        agent.compile(keras.optimizers.Adam(learning_rate, clipnorm=10.0), steps_per_execution=64)
        return agent

    def fit(self, hp, agent, callbacks, **kwargs):
        env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
        test_env = gym.make_vec("CartPole-v1", num_envs=10, vectorization_mode="sync")
        replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=args.seed)
        exploration = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 5_000))
        own_callbacks = [
            keras_dqn.CollectTransitions(env, replay, exploration=exploration, seed=args.seed),
            keras_dqn.SoftTargetUpdate(hp.Float("tau", 1e-3, 1e-1, sampling="log")),
            keras_dqn.EvaluatePolicy(test_env, episodes=10, seed=args.seed + 1_000),
        ]
        dataset = replay.dataset(batch_size=64, gamma=0.99, n_step=hp.Choice("n_step", [1, 3, 5]))
        return agent.fit(dataset, callbacks=[*own_callbacks, *callbacks], **kwargs)


tuner = keras_tuner.RandomSearch(
    CartPole(),
    keras_tuner.Objective("val_return", "max"),
    max_trials=args.trials,
    seed=args.seed,
    directory="tune",
    overwrite=True,
)
tuner.search(steps_per_epoch=2_048, epochs=args.epochs, verbose=0)
for trial in tuner.oracle.get_best_trials(args.trials):
    print(f"return {trial.score:5.1f}", trial.hyperparameters.values)
