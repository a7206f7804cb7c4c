"""Networks that take a list of inputs, the usual Keras idiom, in all that an agent does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dqn


def make():
    image, vector = keras.Input((4, 4, 1), name="image"), keras.Input((3,), name="vector")
    x = keras.layers.Concatenate()([keras.layers.Flatten()(image), vector])
    agent = keras_dqn.DQN(keras.Model([image, vector], keras.layers.Dense(2)(x)), double=True)
    agent.compile(keras.optimizers.SGD(0.1), steps_per_execution=2)
    return agent


def observations(rng, size=5):
    return [rng.normal(size=(size, 4, 4, 1)).astype("f"), rng.normal(size=(size, 3)).astype("f")]


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    ones = np.ones(5, np.float32)
    transition = {"action": rng.integers(2, size=5).astype("i"), "reward": ones, "discount": ones}
    return observations(rng), {**transition, "next_observation": observations(rng)}, ones


def test_it_trains_acts_and_reloads(batch, tmp_path):
    agent = make()
    agent.train_on_batch(*batch)
    x = batch[0]
    values = agent.predict(x, verbose=0)
    np.testing.assert_array_equal(agent.act(x), values.argmax(axis=1))
    one = agent.act([leaf[2] for leaf in x])
    assert one.shape == ()
    assert one == values[2].argmax()
    np.testing.assert_allclose(agent.policy().action_values(x), values, atol=1e-5)
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    np.testing.assert_array_equal(loaded.act(x), agent.act(x))


def test_it_is_exported(batch, tmp_path):
    agent = make()
    agent.export_policy(tmp_path / "policy", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "policy"))
    np.testing.assert_array_equal(exported.serve(batch[0]), agent.act(batch[0]))
