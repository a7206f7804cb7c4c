"""The arithmetic alone in one compiled loop: no Keras, no sampling. Arguments: TASK, K.

The floor for a TensorFlow learner: K updates over K batches that lie ready, Adam written out, all
state carried through the loop. XLA compiles it but for convolutions, which it makes slower on CPUs.
"""

import sys

import numpy as np
import race
import tensorflow as tf
from learner_task import CONVOLUTIONS, GAMMA, LEARNING_RATE, TASKS, TAU, transitions

task, updates = TASKS[sys.argv[1]], int(sys.argv[2])


def initial_weights():
    shapes, inputs = [], task.observation_shape[-1]
    if task.is_image:
        for filters, size, _ in CONVOLUTIONS:
            shapes.append((size, size, inputs, filters))
            inputs = filters
        inputs = 7 * 7 * filters
    for units in (*task.hidden, task.num_actions):
        shapes.append((inputs, units))
        inputs = units
    kernels = [tf.random.normal(s, stddev=np.prod(s[:-1]) ** -0.5) for s in shapes]
    return [w for kernel in kernels for w in (kernel, tf.zeros(kernel.shape[-1]))]


def q_values(weights, x):
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    if task.is_image:
        x = tf.cast(x, tf.float32) / 255.0
        for (_, _, stride), (kernel, bias) in zip(CONVOLUTIONS, pairs, strict=False):
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, stride, "VALID") + bias)
        x = tf.reshape(x, (task.batch_size, -1))
        pairs = pairs[len(CONVOLUTIONS) :]
    for kernel, bias in pairs[:-1]:
        x = tf.nn.relu(x @ kernel + bias)
    return x @ pairs[-1][0] + pairs[-1][1]


def update(step, weights, target, mean, square, batch):
    following = batch["next_observation"]
    chosen = tf.argmax(q_values(weights, following), axis=-1)
    value = tf.gather(q_values(target, following), chosen, batch_dims=1)
    y = batch["reward"] + batch["discount"] * value
    with tf.GradientTape() as tape:
        tape.watch(weights)
        taken = tf.gather(q_values(weights, batch["observation"]), batch["action"], batch_dims=1)
        size = tf.abs(y - taken)
        loss = tf.reduce_mean(tf.where(size <= 1.0, 0.5 * size**2, size - 0.5))
    gradients = tape.gradient(loss, weights)
    t = tf.cast(step + 1, tf.float32)
    rate = LEARNING_RATE * tf.sqrt(1.0 - tf.pow(0.999, t)) / (1.0 - tf.pow(0.9, t))
    mean = [m + 0.1 * (g - m) for m, g in zip(mean, gradients, strict=True)]
    square = [s + 0.001 * (g * g - s) for s, g in zip(square, gradients, strict=True)]
    moved = zip(weights, mean, square, strict=True)
    weights = [w - rate * m / (tf.sqrt(s) + 1e-7) for w, m, s in moved]
    target = [t + TAU * (w - t) for t, w in zip(target, weights, strict=True)]
    return step + 1, weights, target, mean, square


@tf.function(jit_compile=not task.is_image, autograph=False)
def run(state, batches):
    def body(k, state):
        return k + 1, update(*state, {name: rows[k] for name, rows in batches.items()})

    return tf.while_loop(lambda k, _: k < updates, body, (0, state), maximum_iterations=updates)[1]


steps = transitions(task)
rows = np.random.default_rng(0).integers(task.num_transitions, size=(updates, task.batch_size))
steps["discount"] = GAMMA * (1.0 - steps.pop("terminated").astype(np.float32))
batches = {name: tf.constant(array[rows]) for name, array in steps.items()}
weights = initial_weights()
zeros = [tf.zeros_like(w) for w in weights]
state = (tf.constant(0), weights, weights, zeros, zeros)


def work(request):
    global state
    calls = -(-request["count"] // updates)
    for _ in range(calls):
        state = run(state, batches)
    state[0].numpy()
    state[1][0].numpy()
    return calls * updates


work({"count": updates})
race.serve(work)
