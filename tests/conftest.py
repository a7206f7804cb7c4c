"""Shared parts of the tests: networks that differ from their targets, and valid batches."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The networks are small, and the workers of pytest-xdist share the cores.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dqn

KERAS_VERSION = tuple(int(number) for number in keras.__version__.split(".")[:2])

# Two devices, for the tests of distribution strategies. All other tests run on the first one.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def make_network():
    def make(inputs=3, units=5, actions=2, **kwargs):
        return keras.Sequential(
            [
                keras.Input((inputs,)),
                keras.layers.Dense(units, "tanh", **kwargs),
                keras.layers.Dense(actions),
            ]
        )

    return make


@pytest.fixture(scope="session")
def make_agent(make_network):
    """Makes a compiled agent whose online and target networks differ.

    Without XLA, which takes most of a second to compile: `jit_compile="auto"` is for tests of what
    it could change, such as executions, the target's updates and what goes on after saving.
    """

    def make(network=None, double=False, optimizer=None, jit_compile=False, **compile_kwargs):
        agent = keras_dqn.DQN(network or make_network(), double=double)
        optimizer = optimizer or keras.optimizers.SGD(0.1)
        agent.compile(optimizer, jit_compile=jit_compile, **compile_kwargs)
        if agent.built:
            shake(agent.target_network)
        return agent

    return make


def shake(network, seed=1):
    """Changes every floating weight of a network."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        if "float" in weight.dtype:
            weight.assign(weight.numpy() + rng.normal(size=weight.shape) * 0.5)


def damage(content, rng):
    """Returns the bytes of a file with one byte changed, the end cut off, or zeros in one place."""
    content = bytearray(content)
    at = int(rng.integers(len(content)))
    kind = rng.integers(3)
    if kind == 0:
        content[at] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del content[at:]
    else:
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    return bytes(content)


@pytest.fixture(scope="session")
def make_batches():
    """Makes a list of batches `(observation, transition, weight)` with weights that differ."""

    def make(num_batches=1, batch_size=4, inputs=3, actions=2, seed=0):
        rng = np.random.default_rng(seed)
        return [
            (
                rng.normal(size=(batch_size, inputs)).astype(np.float32),
                {
                    "action": rng.integers(actions, size=batch_size).astype(np.int32),
                    "reward": rng.normal(size=batch_size).astype(np.float32),
                    "discount": rng.choice([0.0, 0.9], size=batch_size).astype(np.float32),
                    "next_observation": rng.normal(size=(batch_size, inputs)).astype(np.float32),
                },
                rng.uniform(0.5, 1.5, size=batch_size).astype(np.float32),
            )
            for _ in range(num_batches)
        ]

    return make


@pytest.fixture(scope="session")
def as_dataset():
    """Makes a finite `tf.data.Dataset` of a list of batches, in the same order."""

    def make(batches):
        spec = tf.nest.map_structure(
            lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), batches[0]
        )
        return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec).apply(
            tf.data.experimental.assert_cardinality(len(batches))
        )

    return make
