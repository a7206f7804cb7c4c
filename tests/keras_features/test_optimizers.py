"""What Keras optimizers offer, under `agent.fit` beside NumPy's arithmetic."""

from functools import partial

import keras
import numpy as np
import pytest
from td_reference import Reference, each_kind, in_executions_with_xla, sgd

from keras_dqn import SoftTargetUpdate

SGD = keras.optimizers.SGD
schedules = keras.optimizers.schedules


def linear():
    """Kernel and bias, whose gradients differ in size, are what the optimizers need."""
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


pairs = partial(zip, strict=True)


def norm(gradients):
    return np.sqrt(sum(np.sum(g**2) for g in gradients))


def clip_each_norm(gradients):
    return [g * min(1.0, 0.1 / norm([g])) for g in gradients]


def clip_values(gradients):
    return [np.clip(g, -0.05, 0.05) for g in gradients]


def clip_global_norm(gradients):
    return [g * min(1.0, 0.1 / norm(gradients)) for g in gradients]


CLIPPING = {
    "clipnorm": ({"clipnorm": 0.1}, clip_each_norm),
    "clipvalue": ({"clipvalue": 0.05}, clip_values),
    "global_clipnorm": ({"global_clipnorm": 0.1}, clip_global_norm),
    # The scale is taken out again before the gradients are clipped.
    "scaled loss": ({"loss_scale_factor": 1024.0, "clipnorm": 0.1}, clip_each_norm),
}


@each_kind(CLIPPING)
def test_clipped_gradients(make_agent, make_batches, as_dataset, kind, execution):
    options, clip = CLIPPING[kind]
    batches = make_batches(8)
    agent = make_agent(linear(), optimizer=SGD(0.5, **options), loss="mse", **execution)
    reference = Reference(agent).run(batches, sgd(0.5, clip))
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    reference.check(agent)


OVERWRITES = {"at the end": None, "every third update": 3}


@each_kind(OVERWRITES)
def test_moving_average_of_the_weights(make_agent, make_batches, as_dataset, kind, execution):
    """The target follows the weights as they are during `fit`, which ends on their average."""
    overwrite_every = OVERWRITES[kind]
    batches = make_batches(4)
    average = SGD(0.1, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=overwrite_every)
    agent = make_agent(linear(), optimizer=average, loss="mse", **execution)
    averages = []

    def step(weights, gradients, update):
        weights = sgd(0.1)(weights, gradients, update)
        last = averages[-1] if averages else weights
        averages.append([0.9 * a + 0.1 * w for a, w in pairs(last, weights)])
        overwrites = overwrite_every and (update + 1) % overwrite_every == 0
        return averages[-1] if overwrites else weights

    reference = Reference(agent).run(2 * batches, step)
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(agent.network.get_weights())
    )
    agent.fit(as_dataset(batches), epochs=2, verbose=0, callbacks=[SoftTargetUpdate(0.3), look])
    for before_the_end, raw in pairs(seen[-1], reference.network.get_weights()):
        np.testing.assert_allclose(before_the_end, raw, rtol=0, atol=1e-5)
    reference.network.set_weights(averages[-1])
    reference.check(agent)


def decayed(step, rate):
    return lambda weights, gradients, update: step(
        [w * (1.0 - rate) for w in weights], gradients, update
    )


def adam(learning_rate):
    """Kingma & Ba, 2015, section 2, with the epsilon of Keras."""
    state = {"m": None, "v": None}

    def step(weights, gradients, update):
        zeros = [np.zeros_like(g) for g in gradients]
        state["m"] = [0.9 * m + 0.1 * g for m, g in pairs(state["m"] or zeros, gradients)]
        state["v"] = [0.999 * v + 0.001 * g**2 for v, g in pairs(state["v"] or zeros, gradients)]
        rate = learning_rate * np.sqrt(1 - 0.999 ** (update + 1)) / (1 - 0.9 ** (update + 1))
        return [
            w - rate * m / (np.sqrt(v) + 1e-7) for w, m, v in pairs(weights, state["m"], state["v"])
        ]

    return step


DECAY = {
    "SGD": (lambda: SGD(0.1, weight_decay=0.5), lambda: decayed(sgd(0.1), 0.05)),
    "AdamW": (
        lambda: keras.optimizers.AdamW(0.05, weight_decay=0.5),
        lambda: decayed(adam(0.05), 0.025),
    ),
}


@each_kind(DECAY)
def test_weight_decay_is_of_the_online_network_alone(
    make_agent, make_batches, as_dataset, kind, execution
):
    optimizer, step = DECAY[kind]
    batches = make_batches(8)
    agent = make_agent(linear(), optimizer=optimizer(), loss="mse", **execution)
    reference = Reference(agent).run(batches, step())
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    reference.check(agent, atol=2e-5)


@in_executions_with_xla
def test_accumulated_gradients(make_agent, make_batches, as_dataset, execution):
    """Two batches make one step with their mean gradient; the target counts both."""
    batches = make_batches(8)
    agent = make_agent(
        linear(), optimizer=SGD(0.5, gradient_accumulation_steps=2), loss="mse", **execution
    )
    kept = []

    def step(weights, gradients, update):
        kept.append(gradients)
        if len(kept) < 2:
            return weights
        mean = [(a + b) / 2 for a, b in pairs(*kept)]
        kept.clear()
        return sgd(0.5)(weights, mean, update)

    # A target of every third update tells updates from optimizer steps.
    reference = Reference(agent).run(batches, step, tau=0.3, update_freq=3)
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3, 3)])
    reference.check(agent)


SCHEDULES = {
    "exponential": (schedules.ExponentialDecay(0.5, 3, 0.5), lambda n: 0.5 * 0.5 ** (n / 3)),
    "cosine": (schedules.CosineDecay(0.5, 8), lambda n: 0.25 * (1 + np.cos(np.pi * n / 8))),
}


@each_kind(SCHEDULES)
def test_schedules_count_each_update(make_agent, make_batches, as_dataset, kind, execution):
    schedule, rate = SCHEDULES[kind]
    batches = make_batches(8)
    agent = make_agent(linear(), optimizer=SGD(schedule), loss="mse", **execution)

    def step(weights, gradients, update):
        return sgd(rate(update))(weights, gradients, update)

    reference = Reference(agent).run(batches, step)
    agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.3)])
    reference.check(agent)


RATES = {
    "scheduler": (
        lambda: keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / (epoch + 1)),
        [0.5, 0.25, 0.25 / 3, 0.25 / 12],
    ),
    # Nothing is an improvement by 1e9: after each epoch but the first the rate falls.
    "plateau": (
        lambda: keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9),
        [0.5, 0.5, 0.05, 0.005],
    ),
}


@each_kind(RATES)
def test_callbacks_set_the_learning_rate(make_agent, make_batches, as_dataset, kind, execution):
    callback, rates = RATES[kind]
    batches = make_batches(4)
    agent = make_agent(linear(), optimizer=SGD(0.5), loss="mse", **execution)
    reference = Reference(agent)
    for rate in rates:
        reference.run(batches, sgd(rate))
    history = agent.fit(
        as_dataset(batches), epochs=4, verbose=0, callbacks=[SoftTargetUpdate(0.3), callback()]
    ).history
    assert history["learning_rate"] == pytest.approx(rates)
    reference.check(agent)
