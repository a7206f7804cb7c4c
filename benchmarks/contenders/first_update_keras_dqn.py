"""The quick start of README until its first execution has ended; prints seconds of each part."""

# ruff: noqa: E402

import itertools
import json
import os
import time

marks = [("start of Python", float(os.environ["FIRST_UPDATE_STARTED_AT"])), ("", time.time())]


def mark(name):
    """Notes that a part has ended."""
    marks.append((name, time.time()))


import gymnasium as gym
import keras

mark("import keras, gymnasium")
import keras_dqn

mark("import keras_dqn")
env = gym.make_vec("CartPole-v1", num_envs=8)
network = keras.Sequential(
    [
        keras.Input(env.single_observation_space.shape),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(int(env.single_action_space.n)),
    ]
)
agent = keras_dqn.DQN(network, double=True)
agent.compile(keras.optimizers.Adam(1e-3), steps_per_execution=64)
mark("network, agent, compile")
replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=0)
exploration = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000))
collect = keras_dqn.CollectTransitions(env, replay, exploration=exploration, seed=0)
dataset = replay.dataset(batch_size=64, gamma=0.99, n_step=5)
mark("replay, dataset, collector")
collect.warm_up()
mark("warm-up, 1,000 environment steps")
policy = agent.policy()
policy.action_values(collect.collector.stepper.observation)
mark("conversion of the policy")


class FirstExecution(keras.callbacks.Callback):
    """Ends training after the first execution."""

    def on_train_batch_begin(self, batch, logs=None):
        """Notes what `fit` did before it."""
        mark("fit, until the first execution")

    def on_train_batch_end(self, batch, logs=None):
        """Notes the tracing, XLA's work and the 64 updates."""
        mark("tracing, XLA, 64 updates")
        self.model.stop_training = True


agent.fit(
    dataset,
    steps_per_epoch=2_048,
    verbose=0,
    callbacks=[collect, keras_dqn.SoftTargetUpdate(tau=0.005), FirstExecution()],
)
seconds = {}
for (_, before), (name, after) in itertools.pairwise(marks):
    seconds[name or "start of Python"] = after - before
print(json.dumps(seconds))
