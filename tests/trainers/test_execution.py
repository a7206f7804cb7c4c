import copy
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_dqn
from keras_dqn import SoftTargetUpdate


def network_with_everything():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8, "tanh", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )


def optimizer_with_everything():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.9)
    return keras.optimizers.Adam(schedule, clipnorm=0.5)


def run_of_everything(make_agent, make_batches, as_dataset, steps_per_execution, weights=None):
    """Returns the agent's weights before and after 1,024 updates, and the history."""
    agent = make_agent(
        network_with_everything(),
        double=True,
        optimizer=optimizer_with_everything(),
        steps_per_execution=steps_per_execution,
        jit_compile="auto",
    )
    if weights is not None:
        agent.set_weights(weights)
    before = agent.get_weights()
    batches = as_dataset(make_batches(1_024, batch_size=8))
    history = agent.fit(batches, verbose=0, callbacks=[SoftTargetUpdate(0.1)]).history
    return before, agent.get_weights(), history


@pytest.fixture(scope="module")
def single_updates(make_agent, make_batches, as_dataset):
    return run_of_everything(make_agent, make_batches, as_dataset, steps_per_execution=1)


@pytest.mark.parametrize("steps_per_execution", [4, 64])
def test_fused_updates_equal_single_ones(
    make_agent, make_batches, as_dataset, single_updates, steps_per_execution
):
    """Over 1,024 updates, with a learning-rate schedule, clipping, BatchNorm and a regularizer."""
    before, expected, history = single_updates
    _, weights, fused_history = run_of_everything(
        make_agent, make_batches, as_dataset, steps_per_execution, before
    )
    assert any(np.any(a != b) for a, b in zip(before, weights, strict=True))
    for a, b in zip(expected, weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    for name, value in history.items():
        np.testing.assert_allclose(fused_history[name], value, rtol=1e-4, err_msg=name)


def test_logs_are_means_over_all_updates_of_the_epoch(make_agent, make_batches, as_dataset):
    """Weights stay as they are, so that each batch's loss can be computed beforehand."""
    batches = make_batches(6)
    agent = make_agent(optimizer=keras.optimizers.SGD(0.0), loss="mse", steps_per_execution=3)
    losses = [np.mean(w * agent.td_errors((x, y, w)) ** 2) for x, y, w in batches]
    logs = agent.fit(as_dataset(batches), verbose=0, callbacks=[SoftTargetUpdate(0.0)]).history
    assert logs["loss"] == [pytest.approx(np.mean(losses), rel=1e-5)]
    errors = [np.abs(agent.td_errors(batch)).mean() for batch in batches]
    assert logs["abs_td_error"] == [pytest.approx(np.mean(errors), rel=1e-5)]
    assert agent.evaluate(as_dataset(batches), verbose=0, return_dict=True)[
        "loss"
    ] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.fixture(scope="module")
def unequal_batches(make_batches):
    return make_batches(6, batch_size=4) + make_batches(1, batch_size=3)


@pytest.fixture(scope="module")
def two_epochs_of_them(make_agent, unequal_batches):
    """The weights before and after two epochs, one batch at a time."""
    agent = make_agent(optimizer=keras.optimizers.Adam(0.05))
    before = agent.get_weights()
    for x, y, w in 2 * unequal_batches:
        agent.train_on_batch(x, y, w)
    return before, agent.get_weights()


@pytest.mark.parametrize(
    ("steps_per_execution", "jit_compile"),
    [(1, False), (3, False), (4, True), (100, False)],
    ids=["1", "3", "4-xla", "100"],
)
def test_smaller_last_batches_are_kept(
    make_agent, unequal_batches, two_epochs_of_them, as_dataset, steps_per_execution, jit_compile
):
    before, expected = two_epochs_of_them
    agent = make_agent(
        optimizer=keras.optimizers.Adam(0.05),
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )
    agent.set_weights(before)
    batches = as_dataset(unequal_batches)
    agent.fit(batches, epochs=2, verbose=0, callbacks=[SoftTargetUpdate(0.0)])
    assert int(agent.update_count) == 14
    for a, b in zip(agent.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_arrays_train_like_batches(make_agent, make_batches):
    ((x, y, w),) = make_batches(1, batch_size=10)
    reference = make_agent()
    agent = make_agent(steps_per_execution=2)
    agent.set_weights(reference.get_weights())
    for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
        reference.train_on_batch(x[rows], {k: v[rows] for k, v in y.items()}, w[rows])
    agent.fit(
        x,
        y,
        sample_weight=w,
        batch_size=4,
        shuffle=False,
        verbose=0,
        callbacks=[SoftTargetUpdate(0.0)],
    )
    for a, b in zip(agent.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_batches_without_weights(make_agent, make_batches):
    ((x, y, w),) = make_batches()
    one, other = make_agent(), make_agent()
    other.set_weights(one.get_weights())
    one.train_on_batch(x, y)
    other.train_on_batch(x, y, np.ones_like(w))
    np.testing.assert_allclose(one.network.get_weights()[0], other.network.get_weights()[0])


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_callbacks_are_called_once_an_execution(
    make_agent, make_batches, as_dataset, steps_per_execution
):
    agent = make_agent(steps_per_execution=steps_per_execution)
    counts = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: counts.append(int(agent.update_count))
    )
    agent.fit(as_dataset(make_batches(8)), verbose=0, callbacks=[SoftTargetUpdate(), record])
    assert counts == list(range(steps_per_execution, 9, steps_per_execution))


@pytest.fixture
def make_replay():
    import gymnasium as gym

    def make(cls=keras_dqn.ReplayBuffer):
        buffer = cls(50, gym.spaces.Box(-9, 9, (3,)), gym.spaces.Discrete(2), seed=0)
        rng = np.random.default_rng(0)
        observation = rng.normal(size=3)
        for step in range(50):
            following = rng.normal(size=3)
            buffer.add(observation, step % 2, step, step % 7 == 6, False, following)
            observation = rng.normal(size=3) if step % 7 == 6 else following
        return buffer

    return make


@pytest.fixture
def replay(make_replay):
    return make_replay()


def test_endless_dataset_needs_steps_per_epoch(make_agent, replay):
    agent = make_agent()
    with pytest.raises(ValueError, match="`steps_per_epoch` must be given"):
        agent.fit(replay.dataset(4), verbose=0)
    with pytest.raises(ValueError, match="`steps` must be given"):
        agent.evaluate(replay.dataset(4), verbose=0)
    with pytest.raises(ValueError, match="`validation_steps` must be given"):
        agent.fit(replay.dataset(4), steps_per_epoch=2, validation_data=replay.dataset(4))


@pytest.mark.parametrize(
    ("steps_per_execution", "steps_per_epoch", "jit_compile", "cls"),
    [
        (4, 6, True, keras_dqn.PrioritizedReplayBuffer),
        (4, 6, False, keras_dqn.PrioritizedReplayBuffer),
        (8, 3, True, keras_dqn.ReplayBuffer),
    ],
    ids=["K=4, 6 an epoch", "without XLA", "K=8, 3 an epoch"],
)
def test_the_last_execution_of_an_epoch_makes_the_updates_that_are_left(
    make_agent, make_replay, steps_per_execution, steps_per_epoch, jit_compile, cls
):
    """What was drawn is learned again, batch by batch, by another agent."""
    reference = make_agent(optimizer=keras.optimizers.Adam(0.01), double=True)
    agent = make_agent(
        optimizer=keras.optimizers.Adam(0.01),
        double=True,
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )
    agent.set_weights(reference.get_weights())
    replay, drawn, fed, traces = make_replay(cls), [], [], []
    sample, train_step = replay.sample, agent.train_step
    replay.sample = lambda *args, **kwargs: drawn.append(sample(*args, **kwargs)) or drawn[-1]
    replay.update_priorities = lambda keys, errors: fed.append((keys, errors))
    agent.train_step = lambda data: traces.append(1) or train_step(data)
    agent.fit(
        replay.dataset(4),
        steps_per_epoch=steps_per_epoch,
        epochs=12 // steps_per_epoch,
        verbose=0,
        callbacks=[SoftTargetUpdate(0.1)],
    )
    assert int(agent.update_count) == 12
    assert len(traces) == 1  # one program serves short executions too
    batches = [
        keras.tree.map_structure(lambda leaf, k=k: leaf[k], stack)
        for stack in drawn
        for k in range(len(stack[0]))
    ]
    keys, errors = [], []
    for batch in batches:
        keys.append(batch[1].get("key"))
        errors.append(np.abs(reference.td_errors(batch)))
        reference.train_on_batch(*batch)
        reference.update_target(0.1)
    assert len(batches) == 12
    for a, b in zip(agent.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    if cls is keras_dqn.PrioritizedReplayBuffer:
        np.testing.assert_array_equal(np.concatenate([part for part, _ in fed]), keys)
        np.testing.assert_allclose(np.concatenate([part for _, part in fed]), errors, atol=1e-5)


def test_logs_of_a_short_execution_are_means_over_its_updates_alone(make_agent, replay):
    agent = make_agent(optimizer=keras.optimizers.SGD(0.0), loss="mse", steps_per_execution=4)
    twin = copy.deepcopy(replay)
    losses = [np.mean(agent.td_errors(twin.sample(4)) ** 2) for _ in range(6)]
    logs = agent.fit(
        replay.dataset(4), steps_per_epoch=6, verbose=0, callbacks=[SoftTargetUpdate(0.0)]
    ).history
    assert logs["loss"] == [pytest.approx(np.mean(losses), rel=1e-5)]


def test_a_transformed_dataset_may_end_with_a_short_execution(make_agent, replay):
    agent = make_agent(steps_per_execution=4)
    dataset = replay.dataset(4).map(lambda *batch: batch)
    agent.fit(dataset, steps_per_epoch=6, epochs=2, verbose=0, callbacks=[SoftTargetUpdate()])
    assert int(agent.update_count) == 12


def test_data_that_ends_is_divided_into_whole_executions(make_agent, make_batches, as_dataset):
    """Keras counts K batches an execution, and would find the data at its end too early."""
    agent = make_agent(steps_per_execution=4)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be a multiple"):
        agent.fit(as_dataset(make_batches(12)), steps_per_epoch=6, verbose=0)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_replay_dataset_is_drawn_once_per_execution(make_agent, replay, steps_per_execution):
    agent = make_agent(steps_per_execution=steps_per_execution)
    sizes, sample = [], replay.sample

    def counted(batch_size, num_batches, **kwargs):
        sizes.append((num_batches, batch_size))
        return sample(batch_size, num_batches=num_batches, **kwargs)

    replay.sample = counted
    agent.fit(
        replay.dataset(4), steps_per_epoch=8, epochs=2, verbose=0, callbacks=[SoftTargetUpdate()]
    )
    assert sizes == [(steps_per_execution, 4)] * (16 // steps_per_execution)
    assert int(agent.update_count) == 16


@pytest.mark.parametrize("steps", [4, 5])
def test_evaluate_on_replay_gives_the_td_loss(make_agent, replay, steps):
    agent = make_agent(loss="mse", steps_per_execution=4, jit_compile="auto")
    weights = agent.get_weights()
    drawn = [copy.deepcopy(replay).sample(16)]
    loss = agent.evaluate(replay.dataset(4), steps=steps, verbose=0, return_dict=True)["loss"]
    if steps == 4:  # one execution, drawn in one call
        assert loss == pytest.approx(np.mean(agent.td_errors(drawn[0]) ** 2), rel=1e-5)
    assert np.isfinite(loss)
    for a, b in zip(weights, agent.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_validation_data_gives_val_loss(make_agent, make_batches, as_dataset, replay):
    agent = make_agent(steps_per_execution=4)
    history = agent.fit(
        replay.dataset(4),
        steps_per_epoch=4,
        epochs=2,
        verbose=0,
        validation_data=as_dataset(make_batches(3)),
        callbacks=[SoftTargetUpdate()],
    ).history
    expected = agent.evaluate(as_dataset(make_batches(3)), verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(expected["loss"], rel=1e-5)
    history = agent.fit(
        replay.dataset(4),
        steps_per_epoch=4,
        verbose=0,
        validation_data=replay.dataset(4),
        validation_steps=6,
        callbacks=[SoftTargetUpdate()],
    ).history
    assert np.isfinite(history["val_loss"]).all()


def test_mapped_replay_dataset_trains_too(make_agent, replay):
    agent = make_agent(steps_per_execution=2)
    doubled = replay.dataset(4).map(lambda x, y, w: (x, {**y, "reward": 2 * y["reward"]}, w))
    assert isinstance(doubled, tf.data.Dataset)
    agent.fit(doubled, steps_per_epoch=4, verbose=0, callbacks=[SoftTargetUpdate()])
    assert int(agent.update_count) == 4


def test_fit_twice_in_a_row_traces_once(make_network, replay):
    class Counting(keras_dqn.DQN):
        traces = 0

        def train_step(self, data):
            Counting.traces += 1
            return super().train_step(data)

    agent = Counting(make_network())
    agent.compile("sgd", steps_per_execution=2)
    for _ in range(3):
        agent.fit(
            replay.dataset(4),
            steps_per_epoch=4,
            epochs=2,
            verbose=0,
            callbacks=[SoftTargetUpdate()],
        )
    assert Counting.traces == 1


def test_empty_buffer_is_named_in_the_error(make_agent):
    import gymnasium as gym

    empty = keras_dqn.ReplayBuffer(9, gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2))
    for steps_per_execution in (1, 2):
        agent = make_agent(steps_per_execution=steps_per_execution)
        with pytest.raises(RuntimeError, match="The replay buffer is empty"):
            agent.fit(empty.dataset(4), steps_per_epoch=2, verbose=0)
        with pytest.raises(RuntimeError, match="The replay buffer is empty"):
            agent.evaluate(empty.dataset(4), steps=2, verbose=0)


def test_output_that_does_not_fit_the_buffers_actions(make_agent, make_network, replay):
    with pytest.raises(ValueError, match="`network` must give one value for each"):
        make_agent(make_network(actions=3)).fit(replay.dataset(4), steps_per_epoch=2, verbose=0)


class Alongside(keras.callbacks.Callback):
    """Has something run beside each execution, and writes down what happened when."""

    def __init__(self, function=lambda: None):
        super().__init__()
        self.function = function
        self.events = []
        self.threads = set()

    def on_train_begin(self, logs=None):
        self.model.run_alongside(self.run)

    def run(self):
        self.threads.add(threading.get_ident())
        time.sleep(0.01)  # longer than the program: the batch must not end before
        self.events.append("alongside")
        self.function()

    def on_train_batch_end(self, batch, logs=None):
        self.events.append("batch end")


def test_another_thread_runs_it_once_an_execution(make_agent, make_batches, as_dataset):
    agent = make_agent(steps_per_execution=2)
    alongside = Alongside()
    agent.fit(as_dataset(make_batches(5)), callbacks=[alongside, SoftTargetUpdate()], verbose=0)
    assert alongside.events == ["alongside", "batch end"] * 3  # the last execution is smaller
    assert len(alongside.threads - {threading.get_ident()}) == 1
    assert threading.get_ident() not in alongside.threads


def test_nothing_runs_alongside_evaluate_or_the_next_fit(make_agent, replay):
    agent = make_agent()
    alongside = Alongside()
    agent.fit(
        replay.dataset(4), steps_per_epoch=2, callbacks=[alongside, SoftTargetUpdate()], verbose=0
    )
    agent.evaluate(replay.dataset(4), steps=2, verbose=0)
    agent.fit(replay.dataset(4), steps_per_epoch=2, callbacks=[SoftTargetUpdate()], verbose=0)
    assert alongside.events.count("alongside") == 2


def test_error_alongside_ends_fit_and_leaves_nothing(make_agent, replay):
    def fail():
        raise OSError("the environment has crashed")

    agent = make_agent()
    alongside = Alongside(fail)
    with pytest.raises(OSError, match="the environment has crashed"):
        agent.fit(
            replay.dataset(4),
            steps_per_epoch=2,
            callbacks=[alongside, SoftTargetUpdate()],
            verbose=0,
        )
    agent.fit(replay.dataset(4), steps_per_epoch=2, callbacks=[SoftTargetUpdate()], verbose=0)
    assert alongside.events == ["alongside"]
    assert int(agent.update_count) == 3


def test_network_that_does_not_take_the_buffers_observations(make_agent, make_network, replay):
    with pytest.raises(ValueError, match="`network` must take the observations of the replay"):
        make_agent(make_network(inputs=7)).fit(replay.dataset(4), steps_per_epoch=2, verbose=0)
