"""Deep Q-learning as many tutorials write it in Keras: predict, a Python loop, fit. Argument: TASK.

Plain Q-learning, not double: that would be a third `predict`.
"""

import random
import sys

import keras
import numpy as np
import race
from learner_task import CONVOLUTIONS, GAMMA, LEARNING_RATE, TASKS, TAU, transitions

task = TASKS[sys.argv[1]]


def make_network():
    network = keras.Sequential([keras.Input(task.observation_shape)])
    if task.is_image:
        network.add(keras.layers.Rescaling(1 / 255))
        for sizes in CONVOLUTIONS:
            network.add(keras.layers.Conv2D(*sizes, activation="relu"))
        network.add(keras.layers.Flatten())
    for units in task.hidden:
        network.add(keras.layers.Dense(units, "relu"))
    network.add(keras.layers.Dense(task.num_actions))
    network.compile(keras.optimizers.Adam(LEARNING_RATE), keras.losses.Huber())
    return network


network, target_network = make_network(), make_network()
target_network.set_weights(network.get_weights())
columns = transitions(task)
memory = list(zip(*columns.values(), strict=True))


def update():
    batch = random.sample(memory, task.batch_size)
    observations = np.array([step[0] for step in batch])
    next_observations = np.array([step[4] for step in batch])
    targets = network.predict(observations, verbose=0)
    next_values = target_network.predict(next_observations, verbose=0)
    for i, (_, action, reward, terminated, _) in enumerate(batch):
        targets[i][action] = reward
        if not terminated:
            targets[i][action] += GAMMA * np.max(next_values[i])
    network.fit(observations, targets, batch_size=task.batch_size, epochs=1, verbose=0)
    pairs = zip(network.get_weights(), target_network.get_weights(), strict=True)
    target_network.set_weights([TAU * online + (1 - TAU) * target for online, target in pairs])


def work(request):
    for _ in range(request["count"]):
        update()
    return request["count"]


work({"count": 2})
race.serve(work)
