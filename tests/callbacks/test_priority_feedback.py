"""TD errors of `fit` back to the buffer, against a table of priorities that is kept by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Discrete

from keras_dqn import (
    DQN,
    PrioritizedReplayBuffer,
    PriorityFeedback,
    ReplayBuffer,
    SoftTargetUpdate,
)

EPSILON = 0.01


class Recorded(PrioritizedReplayBuffer):
    """Writes down what is drawn and what is fed back, in this order."""

    def __init__(self, num_steps=60, **kwargs):
        kwargs = {"alpha": 1.0, "beta": 1.0, "epsilon": EPSILON, "seed": 0} | kwargs
        super().__init__(200, Box(-9, 9, (3,)), Discrete(2), **kwargs)
        self.events = []
        rng = np.random.default_rng(0)
        observation, following = rng.normal(size=(2, num_steps, 3))
        for t in range(num_steps):
            ends = t % 7 == 6
            self.add(observation[t], t % 2, 2 * rng.normal(), ends, t % 3 == 0, following[t])

    def sample(self, batch_size, **kwargs):
        batch = super().sample(batch_size, **kwargs)
        self.events.append(("drawn", batch))
        return batch

    def update_priorities(self, keys, td_error):
        self.events.append(("fed back", (keys, td_error)))
        super().update_priorities(keys, td_error)

    def recorded(self, name):
        return [value for event, value in self.events if event == name]

    def priorities(self):
        """Returns {key: priority}, with alpha = 1."""
        self._sampler.take_new_rows()
        leaves = self._sampler.priorities.tree().leaves
        slots = np.flatnonzero(leaves)
        return dict(zip(self._rings.rows(slots)[1].tolist(), leaves[slots].tolist(), strict=True))


def slow_td_errors(agent, batch):
    """Returns target - prediction of a batch or stack, from the networks' outputs."""
    observation, transition, _ = batch
    reward, discount, action = (
        np.ravel(transition[name]) for name in ("reward", "discount", "action")
    )
    after = np.reshape(transition["next_observation"], (-1, 3))
    values = agent.network(np.reshape(observation, (-1, 3))).numpy()
    next_values = agent.target_network(after).numpy()
    chooser = agent.network(after).numpy() if agent.double else next_values
    i = np.arange(len(action))
    target = reward + discount * next_values[i, chooser.argmax(axis=1)]
    return (target - values[i, action]).reshape(np.shape(transition["action"]))


def unbatched(batches):
    """Returns batches of a list of batches and stacks."""
    for observation, transition, weight in batches:
        if observation.ndim == 2:
            yield observation, transition, weight
        else:
            for k in range(len(observation)):
                yield observation[k], {n: v[k] for n, v in transition.items()}, weight[k]


@pytest.fixture
def fit():
    """Fits with a target network that stands still, and without a word about it."""

    def fit(agent, data, steps_per_epoch=None, callbacks=(), **kwargs):
        callbacks = [*callbacks, SoftTargetUpdate(0.0)]
        return agent.fit(
            data, steps_per_epoch=steps_per_epoch, callbacks=callbacks, verbose=0, **kwargs
        )

    return fit


def standing_still(make_agent, **kwargs):
    return make_agent(optimizer=keras.optimizers.SGD(0.0), **kwargs)


def identity(observation, transition, weight):
    return observation, transition, weight


def assert_priorities_are_td_errors(replay, agent):
    """All that was drawn has |TD error| + epsilon, all else the priority it entered with."""
    expected = dict.fromkeys(replay.priorities(), 1.0)
    for batch in replay.recorded("drawn"):
        errors = np.abs(slow_td_errors(agent, batch)) + EPSILON
        keys = batch[1]["key"].ravel().tolist()
        expected |= dict(zip(keys, errors.ravel().tolist(), strict=True))
    assert len(set(expected.values())) > 3
    assert replay.priorities() == pytest.approx(expected, rel=1e-4, abs=1e-5)


# `fit` on the buffer's own dataset


@pytest.mark.parametrize(
    ("steps_per_execution", "double", "run_eagerly"),
    [(1, False, False), (4, True, False), (64, False, False), (1, True, True), (4, False, True)],
    ids=["1", "4-double", "64", "1-double-eager", "4-eager"],
)
def test_fit_leaves_the_td_errors_as_priorities(
    make_agent, fit, steps_per_execution, double, run_eagerly
):
    """The weights stand still, so that the errors can be computed when all is over."""
    agent = standing_still(
        make_agent,
        double=double,
        steps_per_execution=steps_per_execution,
        run_eagerly=run_eagerly,
        jit_compile="auto" if double else False,
    )
    replay = Recorded()
    steps = max(8, steps_per_execution)
    fit(agent, replay.dataset(4, gamma=0.9, n_step=2), steps)
    assert replay.updates == steps
    fed_back = replay.recorded("fed back")
    assert [keys.shape for keys, _ in fed_back] == [(steps_per_execution, 4)] * len(fed_back)
    for (keys, td_error), batch in zip(fed_back, replay.recorded("drawn"), strict=True):
        np.testing.assert_array_equal(keys, batch[1]["key"].reshape(keys.shape))
        expected = np.abs(slow_td_errors(agent, batch).reshape(keys.shape))
        np.testing.assert_allclose(td_error, expected, rtol=1e-4, atol=1e-5)
    assert_priorities_are_td_errors(replay, agent)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_each_execution_draws_from_the_priorities_of_the_one_before(
    make_agent, fit, steps_per_execution
):
    agent = make_agent(steps_per_execution=steps_per_execution)
    replay = Recorded()
    fit(agent, replay.dataset(8), 12)
    names = [name for name, _ in replay.events]
    assert names == ["drawn", "fed back"] * (12 // steps_per_execution)
    priorities = dict.fromkeys(replay.priorities(), 1.0)
    seen = []
    for name, value in replay.events:
        if name == "fed back":
            keys, td_error = (column.ravel().tolist() for column in value)
            priorities |= {k: abs(e) + EPSILON for k, e in zip(keys, td_error, strict=True)}
            continue
        for _, transition, weight in unbatched([value]):
            drawn = np.array([priorities[key] for key in transition["key"].tolist()])
            np.testing.assert_allclose(weight, drawn.min() / drawn, rtol=1e-5)
            seen.append(weight.min())
    assert min(seen[steps_per_execution:]) < 0.5 < max(seen[:steps_per_execution])


def test_errors_are_those_of_each_update_when_its_turn_has_come(make_network, fit):
    """Of a stack's second batch: those after the first one's gradient step; at K = 1 the same."""
    together, alone = DQN(make_network(), double=True), DQN(make_network(), double=True)
    together.compile(keras.optimizers.SGD(0.5), steps_per_execution=4)
    alone.compile(keras.optimizers.SGD(0.5), jit_compile=False)
    together.target_network.set_weights(make_network().get_weights())
    alone.set_weights(together.get_weights())
    replay = Recorded()
    fit(together, replay.dataset(8), 8)
    fed_back = np.concatenate([td_error for _, td_error in replay.recorded("fed back")])
    first = slow_td_errors(alone, next(unbatched(replay.recorded("drawn"))))
    for td_error, batch in zip(fed_back, unbatched(replay.recorded("drawn")), strict=True):
        expected = np.abs(slow_td_errors(alone, batch))
        np.testing.assert_allclose(td_error, expected, rtol=1e-3, atol=1e-4)
        alone.train_on_batch(*batch)
    changed = slow_td_errors(alone, next(unbatched(replay.recorded("drawn"))))
    assert np.abs(changed - first).max() > 0.1


def test_a_subclass_feeds_back_what_it_takes_for_the_td_error(make_network, fit):
    class Doubled(DQN):
        def td_error(self, target, prediction):
            return 2.0 * super().td_error(target, prediction)

    agent = Doubled(make_network())
    agent.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    replay = Recorded()
    fit(agent, replay.dataset(4), 1)
    ((_, td_error),), (batch,) = replay.recorded("fed back"), replay.recorded("drawn")
    expected = 2 * np.abs(slow_td_errors(agent, batch))
    np.testing.assert_allclose(td_error, expected, rtol=1e-4, atol=1e-5)


def test_many_updates_an_execution_do_not_warn(make_agent, fit):
    """The second execution is drawn after 128 batches, all of which were fed back."""
    replay = Recorded()
    fit(make_agent(steps_per_execution=128), replay.dataset(4), 128, epochs=2)
    assert replay.updates == 256


def test_validation_feeds_nothing_back(make_agent, fit):
    replay, other = Recorded(), Recorded()
    agent = make_agent(run_eagerly=True)
    fit(agent, replay.dataset(4), 2, validation_data=other.dataset(4), validation_steps=3)
    assert len(replay.recorded("fed back")) == 2
    assert [name for name, _ in other.events] == ["drawn"] * 3


# Transformed datasets and other sources


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_mapped_dataset_is_refused(make_agent, fit, steps_per_execution):
    agent = make_agent(steps_per_execution=steps_per_execution)
    replay = Recorded()
    with pytest.raises(ValueError, match=r"add `keras_dqn.PriorityFeedback\(replay\)`"):
        fit(agent, replay.dataset(4).map(identity), 4)
    assert int(agent.update_count) == 0
    assert replay.recorded("fed back") == []
    assert len(replay.recorded("drawn")) <= steps_per_execution  # the first execution's


@pytest.mark.parametrize("source", ["arrays", "generator"])
def test_other_sources_with_keys_are_refused(make_agent, fit, source):
    agent = make_agent(run_eagerly=True)
    observation, transition, weight = Recorded().sample(4)
    sources = {
        "arrays": {"data": observation, "y": transition, "sample_weight": weight},
        "generator": {
            "data": ((observation, transition, weight) for _ in range(2)),
            "shuffle": False,
        },
    }
    with pytest.raises(ValueError, match="PriorityFeedback"):
        fit(agent, **sources[source])
    agent.train_on_batch(observation, transition, weight)  # outside `fit` nobody minds


@pytest.mark.parametrize(
    ("steps_per_execution", "run_eagerly"), [(1, False), (4, False), (4, True)]
)
def test_the_callback_feeds_back_what_a_mapped_dataset_gives(
    make_agent, fit, steps_per_execution, run_eagerly
):
    agent = standing_still(
        make_agent, steps_per_execution=steps_per_execution, run_eagerly=run_eagerly
    )
    replay = Recorded()
    dataset = replay.dataset(4).map(identity)
    fit(agent, dataset, 8, [PriorityFeedback(replay)])
    assert replay.updates == 8
    assert len(replay.recorded("fed back")) == 8 // steps_per_execution
    assert_priorities_are_td_errors(replay, agent)


def test_errors_are_those_of_the_mapped_batch(make_agent, fit):
    agent = standing_still(make_agent, run_eagerly=True)
    replay = Recorded()
    dataset = replay.dataset(4).map(lambda x, y, w: (x, {**y, "reward": y["reward"] + 50.0}, w))
    fit(agent, dataset, 1, [PriorityFeedback(replay)])
    ((_, td_error),), (batch,) = replay.recorded("fed back"), replay.recorded("drawn")
    np.testing.assert_allclose(td_error[0], 50 + slow_td_errors(agent, batch), rtol=1e-4)


def test_the_callback_holds_until_fit_ends(make_agent, fit):
    agent = make_agent(run_eagerly=True)
    replay = Recorded()
    dataset = replay.dataset(4).map(identity)
    fit(agent, dataset, 1, [PriorityFeedback(replay)])
    for callbacks in ([], [keras.callbacks.Callback()]):
        with pytest.raises(ValueError, match="PriorityFeedback"):
            fit(agent, dataset, 1, callbacks)
    assert replay.updates == 1


def test_nothing_is_fed_back_to_the_buffer_of_an_earlier_fit(make_agent, fit):
    agent = make_agent(run_eagerly=True)
    first, second = Recorded(), Recorded()
    for replay in (first, second, second):
        fit(agent, replay.dataset(4), 1)
    assert (first.updates, second.updates) == (1, 2)
    agent.train_on_batch(*first.sample(4))
    assert (first.updates, second.updates) == (1, 2)


def test_the_callback_beside_the_buffers_own_dataset(make_agent, fit):
    agent = make_agent(run_eagerly=True)
    replay = Recorded()
    fit(agent, replay.dataset(4), 3, [PriorityFeedback(replay)])
    assert replay.updates == 3


def test_batches_of_unequal_size(make_agent, as_dataset, fit):
    """Four batches an execution; a smaller one is a program of its own, and is fed back too."""
    agent = standing_still(make_agent, steps_per_execution=4, jit_compile=False)
    replay = Recorded()
    batches = [replay.sample(size) for size in (4, 4, 3, 4, 4, 2)]
    fit(agent, as_dataset(batches), callbacks=[PriorityFeedback(replay)])
    shapes = [keys.shape for keys, _ in replay.recorded("fed back")]
    assert shapes == [(2, 4), (1, 3), (1, 4), (1, 4), (1, 2)]
    assert_priorities_are_td_errors(replay, agent)


def test_uniform_buffers_need_no_feedback(make_agent, fit):
    replay = ReplayBuffer(9, Box(-9, 9, (3,)), Discrete(2))
    replay.add(np.zeros(3), 0, 1.0, False, False, np.ones(3))
    agent = make_agent(run_eagerly=True)
    for dataset in (replay.dataset(4), replay.dataset(4).map(identity)):
        fit(agent, dataset, 1)
    assert int(agent.update_count) == 2


def test_a_buffer_without_priorities_is_refused():
    with pytest.raises(ValueError, match="`replay` must be a PrioritizedReplayBuffer"):
        PriorityFeedback(ReplayBuffer(9, Box(-9, 9, (3,)), Discrete(2)))


def plain_keras_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    return model


def rewards(observation, transition, weight):
    return observation, transition["reward"][:, None], weight


def test_a_model_that_is_no_dqn_is_refused():
    replay = Recorded()
    with pytest.raises(ValueError, match=r"`PriorityFeedback` needs a DQN\. Received: model=<Seq"):
        plain_keras_model().fit(
            replay.dataset(4).map(rewards),
            steps_per_epoch=1,
            callbacks=[PriorityFeedback(replay)],
            shuffle=False,
            verbose=0,
        )


# Buffers that nobody feeds back to


def test_a_plain_keras_model_is_warned_after_100_batches():
    replay = Recorded()
    model, dataset = plain_keras_model(), replay.dataset(4).map(rewards)
    model.fit(dataset, steps_per_epoch=100, shuffle=False, verbose=0)  # a warning were an error
    with pytest.warns(UserWarning, match="100 batches were drawn.*no TD error came back") as warned:
        model.fit(dataset, steps_per_epoch=200, shuffle=False, verbose=0)
    assert len(warned) == 1


def test_a_dqn_on_batches_without_keys_is_warned(make_agent, fit):
    replay = Recorded()

    @tf.autograph.experimental.do_not_convert
    def without_key(observation, transition, weight):
        return observation, {k: v for k, v in transition.items() if k != "key"}, weight

    with pytest.warns(UserWarning, match="no TD error came back"):
        fit(make_agent(), replay.dataset(4).map(without_key), 101)


@pytest.mark.parametrize("td_error", [None, 0.5], ids=["none", "a scalar"])
@pytest.mark.parametrize("run_eagerly", [False, True], ids=["graph", "eager"])
def test_a_train_step_that_returns_no_td_error_is_refused(make_network, fit, td_error, run_eagerly):
    class Own(DQN):
        def train_step(self, data):
            logs = {"loss": keras.ops.zeros(())}
            return logs if td_error is None else {**logs, "td_error": keras.ops.array(td_error)}

    agent = Own(make_network())
    agent.compile("sgd", run_eagerly=run_eagerly)
    replay = Recorded()
    with pytest.raises(ValueError, match=r"`train_step` must return `td_error`, of shape \[B\]"):
        fit(agent, replay.dataset(4), 2)
    assert replay.updates == 0


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_train_step_of_ones_own_sets_priorities(make_network, fit, steps_per_execution):
    class Own(DQN):
        def train_step(self, data):
            _, transition, _ = data
            return {"td_error": 0.5 * keras.ops.cast(transition["key"], "float32"), "own": 1.0}

    agent = Own(make_network())
    agent.compile("sgd", steps_per_execution=steps_per_execution)
    replay = Recorded()
    history = fit(agent, replay.dataset(4), 8).history
    assert list(history) == ["own"]
    for keys, td_error in replay.recorded("fed back"):
        np.testing.assert_array_equal(td_error, 0.5 * keys)


# Outside `fit`


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("mapped", [False, True], ids=["own", "mapped"])
def test_evaluate_neither_feeds_back_nor_is_refused(make_agent, steps_per_execution, mapped):
    agent = make_agent(steps_per_execution=steps_per_execution)
    replay = Recorded()
    before = replay.priorities()
    dataset = replay.dataset(4).map(identity) if mapped else replay.dataset(4)
    steps = 12 if mapped else 132
    loss = agent.evaluate(dataset, steps=steps, verbose=0)
    assert np.isfinite(loss).all()
    assert replay.recorded("fed back") == []
    assert replay.priorities() == before


def test_train_on_batch_feeds_nothing_back(make_agent):
    """Whoever writes the loop feeds back too, with the errors from before the update or after."""
    agent = make_agent()
    twin = make_agent(agent.network.__class__.from_config(agent.network.get_config()))
    twin.set_weights(agent.get_weights())
    replay = Recorded()
    for _ in range(3):
        observation, transition, weight = replay.sample(4)
        agent.train_on_batch(observation, transition, weight)
        without = {name: column for name, column in transition.items() if name != "key"}
        twin.train_on_batch(observation, without, weight)
    assert replay.updates == 0
    for a, b in zip(agent.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    batch = replay.sample(8)
    td_error = agent.td_errors(batch)
    np.testing.assert_allclose(td_error, slow_td_errors(agent, batch), rtol=1e-4, atol=1e-5)
    replay.update_priorities(batch[1]["key"], td_error)
    expected = dict(zip(batch[1]["key"].tolist(), np.abs(td_error) + EPSILON, strict=True))
    found = replay.priorities()
    assert {key: found[key] for key in expected} == pytest.approx(expected)
