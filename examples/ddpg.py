"""
Title: DDPG with two slow target networks
Author: The keras_dqn authors
Date created: 2026/11/23
Last modified: 2026/11/24
Description: DDPG (Lillicrap et al., 2016) swings up a pendulum with two targets in one `fit`.
Accelerator: None
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--epochs", type=int, default=9, help="of 1000 updates (default 9)")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)
rng = np.random.default_rng(args.seed)
env = gym.wrappers.RecordEpisodeStatistics(gym.make("Pendulum-v1"))


def dense(inputs, activation=None):
    x = keras.layers.Dense(64, "relu")(keras.layers.Dense(64, "relu")(inputs))
    return keras.layers.Dense(1, activation)(x)


class DDPG(keras.Model):
    def __init__(self, *networks):
        super().__init__()
        self.actor, self.critic, self.target_actor, self.target_critic = networks

    def train_step(self, data):
        observation, action, reward, next_observation = data
        next_value = self.target_critic((next_observation, self.target_actor(next_observation)))
        target = reward + 0.99 * next_value  # a time limit is no end, and Pendulum has no other
        with tf.GradientTape(persistent=True) as tape:
            critic_loss = keras.ops.mean((self.critic((observation, action)) - target) ** 2)
            actor_loss = -keras.ops.mean(self.critic((observation, self.actor(observation))))
        for net, loss in ((self.critic, critic_loss), (self.actor, actor_loss)):
            net.optimizer.apply(tape.gradient(loss, net.trainable_weights), net.trainable_weights)
        return {"critic_loss": critic_loss, "actor_loss": actor_loss}


class Collect(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.rows, self.act = [], tf.function(self.model.actor)
        self.observation, _ = env.reset(seed=args.seed)
        for _ in range(1_000):
            self.step(rng.uniform(-2.0, 2.0, 1))

    def on_train_batch_begin(self, batch, logs=None):
        self.step(self.act(self.observation[None]).numpy()[0] + rng.normal(0.0, 0.2, 1))

    def step(self, action):
        observation, reward, _, truncated, _ = env.step(action := np.clip(action, -2.0, 2.0))
        self.rows.append(np.float32([*self.observation, *action, reward, *observation]))
        self.observation = env.reset()[0] if truncated else observation

    def batches(self):
        while True:
            rows = np.stack([self.rows[i] for i in rng.integers(len(self.rows), size=128)])
            yield tuple(np.split(rows, (3, 4, 5), axis=1))


inputs = keras.Input((3,)), keras.Input((1,))
actor = keras.Model(inputs[0], 2.0 * dense(inputs[0], "tanh"))
critic = keras.Model(inputs, dense(keras.layers.Concatenate()(inputs)))
targets, follow = [], []
for network in (actor, critic):
    network.compile("adam")
    targets.append(keras.models.clone_model(network))
    keras_dqn.soft_update(network, targets[-1], tau=1.0)
    follow.append(keras_dqn.SoftTargetUpdate(0.005, source=network, target=targets[-1]))
model, collect = DDPG(actor, critic, *targets), Collect()
model.compile()
spec = tuple(tf.TensorSpec((128, size)) for size in (3, 1, 1, 3))
batches = tf.data.Dataset.from_generator(collect.batches, output_signature=spec)
fit = {"steps_per_epoch": 1_000, "epochs": args.epochs, "shuffle": False, "verbose": 2}
model.fit(batches, callbacks=[collect, *follow], **fit)
print("mean returns of five episodes:", np.reshape(env.return_queue, (-1, 5)).mean(1).round())
