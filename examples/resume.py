"""
Title: A run that is killed and continues
Author: The keras_dqn authors
Date created: 2026/11/24
Last modified: 2026/11/24
Description: A process kills itself in the middle of training; the next one continues exactly.
Accelerator: None
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--epochs", type=int, default=8, help="epochs of 1,000 updates (default 8)")
parser.add_argument("--kill", metavar="DIR", help="train in DIR, and die in the middle")
args = parser.parse_args()


def train(directory, kill_at=float("inf")):
    keras.utils.set_random_seed(0)
    env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    agent = keras_dqn.DQN(keras_dqn.networks.mlp(env.single_observation_space, 2), double=True)
    agent.compile(keras.optimizers.Adam(1e-3, clipnorm=10.0), steps_per_execution=50)
    replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, capacity=50_000, seed=0)
    exploration = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 5_000))

    def kill(batch, logs):
        if agent.update_count.numpy() >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    parts = [
        keras_dqn.CollectTransitions(env, replay, exploration=exploration, seed=0),
        keras_dqn.SoftTargetUpdate(tau=0.005),
        keras_dqn.TrainingCheckpoint(directory),
        keras.callbacks.LambdaCallback(on_train_batch_end=kill),
    ]
    data = replay.dataset(batch_size=64, gamma=0.99, n_step=5)
    return agent.fit(data, epochs=args.epochs, steps_per_epoch=1_000, verbose=2, callbacks=parts)


if args.kill:
    train(args.kill, kill_at=args.epochs * 500 + 250)  # no line below runs in this process
with tempfile.TemporaryDirectory() as killed, tempfile.TemporaryDirectory() as whole:
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--kill", killed])
    print("The process was killed. The same call of `fit` continues its run:")
    history = train(killed)
    print("And this run is not interrupted:")
    print("equal to the last bit:", train(whole).history == history.history)
