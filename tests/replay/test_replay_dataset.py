import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Dict, Discrete

from keras_dqn import ReplayBuffer, ReplayDataset


class CountedBuffer(ReplayBuffer):
    """Observation t leads to t + 1 with action t % 3 and reward t."""

    def __init__(self, num_steps=20, capacity=100):
        super().__init__(capacity, Box(0.0, 1e6, (1,)), Discrete(3), seed=0)
        self.calls = []
        self.num_steps = 0
        self.grow(num_steps)

    def grow(self, num_steps):
        for t in range(self.num_steps, self.num_steps + num_steps):
            self.add([t], t % 3, t, False, False, [t + 1])
        self.num_steps += num_steps

    def sample(self, batch_size, **kwargs):
        self.calls.append((batch_size, kwargs))
        return super().sample(batch_size, **kwargs)


def assert_transitions(batch, gamma, n_step):
    observation, transition, weight = batch
    start = observation.numpy()[..., 0]
    np.testing.assert_array_equal(transition["action"], start % 3)
    reward = sum(gamma**k * (start + k) for k in range(n_step))
    np.testing.assert_allclose(transition["reward"], reward, rtol=1e-6)
    np.testing.assert_allclose(transition["discount"], np.full(start.shape, gamma**n_step))
    np.testing.assert_array_equal(transition["next_observation"][..., 0], start + n_step)
    np.testing.assert_array_equal(weight, np.ones(start.shape))


@pytest.fixture(params=["plain", "mapped", "taken", "options"])
def make_batches_of_two(request):
    """Makes datasets of batches of two, as the buffer gives them or after a transformation."""

    def make(replay):
        dataset = replay.dataset(2)
        if request.param == "mapped":
            return dataset.map(lambda x, y, weight: (tf.abs(x), y, weight))
        if request.param == "taken":
            return dataset.take(100)
        return dataset.with_options(tf.data.Options()) if request.param == "options" else dataset

    return make


def test_it_is_an_endless_tf_data_dataset():
    dataset = CountedBuffer().dataset(4, gamma=0.5, n_step=2)
    assert isinstance(dataset, tf.data.Dataset)
    assert isinstance(dataset, ReplayDataset)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert (dataset.batch_size, dataset.gamma, dataset.n_step) == (4, 0.5, 2)


def test_element_spec_is_that_of_the_elements():
    space = Dict({"image": Box(0, 255, (2, 2), np.uint8), "nested": Dict({"gear": Discrete(3)})})
    replay = ReplayBuffer(10, space, Discrete(2))
    observation = {"image": np.ones((2, 2), np.uint8), "nested": {"gear": 2}}
    replay.add(observation, 1, 0.5, True, False, observation)
    dataset = replay.dataset(4)
    expected = {
        "image": tf.TensorSpec((4, 2, 2), tf.uint8),
        "nested": {"gear": tf.TensorSpec((4,), tf.int32)},
    }
    transition = {
        "action": tf.TensorSpec((4,), tf.int32),
        "reward": tf.TensorSpec((4,), tf.float32),
        "discount": tf.TensorSpec((4,), tf.float32),
        "next_observation": expected,
    }
    assert dataset.element_spec == (expected, transition, tf.TensorSpec((4,), tf.float32))
    element = next(iter(dataset))
    tf.nest.assert_same_structure(element, dataset.element_spec)
    for tensor, spec in zip(*map(tf.nest.flatten, (element, dataset.element_spec)), strict=True):
        assert spec.is_compatible_with(tensor)
    assert element[0]["nested"]["gear"].numpy().tolist() == [2] * 4
    assert element[1]["reward"].numpy().tolist() == [0.5] * 4


@pytest.mark.parametrize("n_step", [1, 3])
def test_elements_are_what_sample_draws(n_step):
    replay, twin = CountedBuffer(), CountedBuffer()
    iterator = iter(replay.dataset(8, gamma=0.5, n_step=n_step))
    for _ in range(3):
        batch = next(iterator)
        assert_transitions(batch, 0.5, n_step)
        drawn = twin.sample(8, gamma=0.5, n_step=n_step)
        for tensor, array in zip(tf.nest.flatten(batch), tf.nest.flatten(drawn), strict=True):
            np.testing.assert_array_equal(tensor, array)


def test_nothing_is_drawn_ahead(make_batches_of_two):
    replay = CountedBuffer()
    iterator = iter(make_batches_of_two(replay))
    assert replay.calls == []
    for count in range(1, 101):
        next(iterator)
        assert len(replay.calls) == count


def test_what_was_added_last_is_in_the_next_batch(make_batches_of_two):
    replay = CountedBuffer(num_steps=1, capacity=1)
    iterator = iter(make_batches_of_two(replay))
    for t in range(5):
        observation, _, _ = next(iterator)
        assert observation.numpy().tolist() == [[t], [t]]
        replay.grow(1)


def test_transformations_work():
    dataset = CountedBuffer().dataset(4)
    assert len(list(dataset.take(3))) == 3
    (observation, transition, weight), *_ = dataset.batch(5).take(1)
    assert observation.shape == (5, 4, 1)
    assert transition["next_observation"].shape == (5, 4, 1)
    assert weight.shape == (5, 4)
    (zipped,) = tf.data.Dataset.zip(dataset, dataset).take(1)
    assert zipped[1][0].shape == (4, 1)
    (doubled,) = dataset.map(lambda x, y, w: (x, 2 * y["reward"])).take(1)
    np.testing.assert_array_equal(doubled[1], 2 * doubled[0][:, 0])


def test_a_stack_is_one_draw():
    replay, twin = CountedBuffer(), CountedBuffer()
    dataset = replay.dataset(4, gamma=0.5, n_step=2).stacked(3)
    assert dataset.element_spec[0] == tf.TensorSpec((3, 4, 1), tf.float32)
    batch = next(iter(dataset))
    assert replay.calls == [(4, {"gamma": 0.5, "n_step": 2, "num_batches": 3})]
    for tensor, spec in zip(*map(tf.nest.flatten, (batch, dataset.element_spec)), strict=True):
        assert tensor.shape == spec.shape
    assert_transitions(batch, 0.5, 2)
    rows = twin.sample(12, gamma=0.5, n_step=2)
    np.testing.assert_array_equal(tf.reshape(batch[0], (12, 1)), rows[0])
    np.testing.assert_array_equal(tf.reshape(batch[1]["action"], 12), rows[1]["action"])


def test_a_stack_is_drawn_as_uniformly_as_batches():
    dataset = CountedBuffer(num_steps=10).dataset(50)
    stack = next(iter(dataset.stacked(40)))[0].numpy()
    batches = np.stack([batch[0].numpy() for batch in dataset.take(40)])
    for starts in (stack, batches):
        counts = np.bincount(starts.astype(int).ravel(), minlength=10)
        assert ((counts - 200) ** 2 / 200).sum() < 50  # chi-square of 9 degrees: 9, and 4 apart


def test_a_stack_is_made_once():
    dataset = CountedBuffer().dataset(4)
    assert dataset.stacked(3) is dataset.stacked(3)
    assert dataset.stacked(3) is not dataset.stacked(2)
    assert dataset.stacked(1).element_spec[0].shape == (1, 4, 1)


def test_a_stack_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`num_batches` must be at least 1"):
        CountedBuffer().dataset(4).stacked(0)


def test_the_buffers_errors_reach_the_reader():
    iterator = iter(CountedBuffer(num_steps=0).dataset(4))
    with pytest.raises(tf.errors.OpError, match="The replay buffer is empty"):
        next(iterator)


def test_an_iterator_outlives_the_names_of_its_dataset(make_batches_of_two):
    iterators = [
        iter(make_batches_of_two(CountedBuffer())),
        iter(CountedBuffer().dataset(1).stacked(2)),
        iter(CountedBuffer().dataset(1).map(lambda x, y, w: x).batch(2)),
        iter(tf.data.Dataset.zip(CountedBuffer().dataset(2), tf.data.Dataset.range(9))),
    ]
    gc.collect()
    for iterator in iterators:
        assert tf.nest.flatten(next(iterator))[0].shape[0] == 2


def test_a_buffer_dies_with_its_datasets():
    replay = CountedBuffer()
    buffer, dataset = weakref.ref(replay), replay.dataset(2)
    for drawn_from in (dataset, dataset.stacked(2), dataset.batch(2)):
        next(iter(drawn_from))
    del replay, dataset, drawn_from
    gc.collect()
    assert buffer() is None


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_plain_keras_model_fits_it(steps_per_execution):
    replay = CountedBuffer()
    dataset = replay.dataset(32).map(lambda x, y, w: (x / 20, y["reward"][:, None] / 20, w))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse", steps_per_execution=steps_per_execution)
    model.fit(dataset, steps_per_epoch=200, verbose=0, shuffle=False)
    assert len(replay.calls) == 200
    assert model.predict(np.array([[0.5]]), verbose=0).item() == pytest.approx(0.5, abs=0.05)


class CallsAtEachBatch(keras.callbacks.Callback):
    def __init__(self, replay):
        super().__init__()
        self.replay = replay
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(len(self.replay.calls))


def test_a_plain_keras_model_draws_each_batch_after_the_one_before():
    replay = CountedBuffer()
    dataset = replay.dataset(4).map(lambda x, y, w: (x, y["reward"][:, None], w))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mae")
    seen = CallsAtEachBatch(replay)
    model.fit(dataset, steps_per_epoch=6, verbose=0, shuffle=False, callbacks=[seen])
    assert seen.seen == [0, 1, 2, 3, 4, 5]
