import keras
import numpy as np
import pytest
from conftest import shake

import keras_dqn
from keras_dqn import SoftTargetUpdate


@pytest.fixture(scope="module", params=[(0.1, 1), (1.0, 5), (0.3, 3)], ids=["soft", "hard", "both"])
def numpy_reference(request, make_agent, make_batches):
    """Applies 64 updates one by one, with NumPy for the target network.

    Returns the callback's arguments, the weights before and the agent after.
    """
    tau, update_freq = request.param
    agent = make_agent(optimizer=keras.optimizers.Adam(0.05))
    before = agent.get_weights()
    for count, (observation, transition, weight) in enumerate(make_batches(64), start=1):
        agent.train_on_batch(observation, transition, weight)
        if count % update_freq == 0:
            target = [
                b + tau * (a - b)
                for a, b in zip(
                    agent.network.get_weights(), agent.target_network.get_weights(), strict=True
                )
            ]
            agent.target_network.set_weights(target)
    return request.param, before, agent


@pytest.mark.parametrize("steps_per_execution", [1, 4, 32])
def test_equals_a_numpy_reference(
    make_agent, make_batches, as_dataset, numpy_reference, steps_per_execution
):
    arguments, before, reference = numpy_reference
    agent = make_agent(
        optimizer=keras.optimizers.Adam(0.05),
        steps_per_execution=steps_per_execution,
        jit_compile="auto",
    )
    agent.set_weights(before)
    agent.fit(as_dataset(make_batches(64)), verbose=0, callbacks=[SoftTargetUpdate(*arguments)])
    assert int(agent.update_count) == 64
    for network in ("network", "target_network"):
        for a, b in zip(
            getattr(agent, network).get_weights(),
            getattr(reference, network).get_weights(),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_counts_on_from_a_saved_agent(make_agent, make_batches, as_dataset, tmp_path):
    batches = make_batches(6)
    agent = make_agent()
    start = agent.target_network.get_weights()
    agent.fit(as_dataset(batches[:4]), verbose=0, callbacks=[SoftTargetUpdate(1.0, 5)])
    np.testing.assert_array_equal(agent.target_network.get_weights()[0], start[0])
    agent.save(tmp_path / "agent.keras")
    agent = keras.models.load_model(tmp_path / "agent.keras")
    agent.fit(as_dataset(batches[4:5]), verbose=0, callbacks=[SoftTargetUpdate(1.0, 5)])
    for a, b in zip(agent.network.weights, agent.target_network.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def plain_pair():
    def make():
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, "tanh"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5, seed=3),
                keras.layers.Dense(1),
            ]
        )

    student, teacher = make(), make()
    shake(teacher)
    student.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return student, teacher


def plain_data(rows=32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 3)).astype("float32"), rng.normal(size=(rows, 1))


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("jit_compile", [False, True], ids=["no xla", "xla"])
def test_any_keras_model(steps_per_execution, jit_compile):
    x, y = plain_data()
    student, teacher = plain_pair()
    reference, followed = plain_pair()
    reference.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
    reference.set_weights(student.get_weights())
    followed.set_weights(teacher.get_weights())
    student.compile(
        keras.optimizers.SGD(0.1),
        "mse",
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )
    student.fit(
        x,
        y,
        batch_size=4,
        shuffle=False,
        verbose=0,
        callbacks=[SoftTargetUpdate(0.25, source=student, target=teacher)],
    )
    seeds = [v for v in followed.variables if "seed" in v.path]
    drawn = [v.numpy() for v in seeds]
    for row in range(0, 32, 4):
        reference.train_on_batch(x[row : row + 4], y[row : row + 4])
        keras_dqn.soft_update(reference, followed, 0.25)
    for a, b in zip(teacher.get_weights(), followed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for v, before in zip(seeds, drawn, strict=True):
        np.testing.assert_array_equal(v.numpy(), before)
    moving_mean = student.layers[1].moving_mean.numpy()
    np.testing.assert_array_equal(teacher.layers[1].moving_mean.numpy(), moving_mean)


def test_soft_update_by_hand():
    online, target = keras.layers.Dense(1), keras.layers.Dense(1)
    for layer, kernel, bias in ((online, 10.0, -4.0), (target, 2.0, 8.0)):
        layer.build((None, 1))
        layer.set_weights([np.array([[kernel]]), np.array([bias])])
    keras_dqn.soft_update(online, target, 0.25)  # 2 + (10 - 2) / 4 and 8 + (-4 - 8) / 4
    assert target.kernel.numpy() == 4.0
    assert target.bias.numpy() == 5.0
    assert online.kernel.numpy() == 10.0


def test_update_freq_on_any_keras_model_counts_over_fits():
    x, y = plain_data(12)
    student, teacher = plain_pair()
    before = teacher.get_weights()[0]
    callback = SoftTargetUpdate(1.0, 5, source=student, target=teacher)
    student.fit(x, y, batch_size=3, verbose=0, callbacks=[callback])  # 4 updates
    np.testing.assert_array_equal(teacher.get_weights()[0], before)
    student.fit(x[:3], y[:3], batch_size=3, verbose=0, callbacks=[callback])  # the 5th
    np.testing.assert_array_equal(teacher.get_weights()[0], student.get_weights()[0])


def test_two_at_once_removed_in_any_order():
    x, y = plain_data(8)
    student, soft = plain_pair()
    _, hard = plain_pair()
    callbacks = [
        SoftTargetUpdate(0.5, source=student, target=soft),
        SoftTargetUpdate(1.0, 2, source=student, target=hard),
    ]
    start = soft.get_weights()[0]
    function, step = student.train_function, student.train_step
    student.fit(x, y, batch_size=4, verbose=0, callbacks=callbacks)
    np.testing.assert_array_equal(hard.get_weights()[0], student.get_weights()[0])
    assert np.any(soft.get_weights()[0] != start)
    assert student.train_function is function
    assert student.train_step == step
    student.fit(x, y, batch_size=4, verbose=0, callbacks=callbacks[::-1])
    np.testing.assert_array_equal(hard.get_weights()[0], student.get_weights()[0])


@pytest.mark.parametrize("kind", ["agent", "plain"])
def test_nothing_stays_after_fit(kind, make_agent, make_batches, as_dataset):
    if kind == "agent":
        model, (x, y, w) = make_agent(), make_batches()[0]
        target, callback = model.target_network, SoftTargetUpdate(0.5)
    else:
        (model, target), (x, y), w = plain_pair(), plain_data(4), None
        callback = SoftTargetUpdate(0.5, source=model, target=target)
    model.train_on_batch(x, y, w)
    function, step, instance = model.train_function, model.train_step, dict(vars(model))
    model.fit(x, y, sample_weight=w, verbose=0, callbacks=[callback])
    assert model.train_function is function
    assert model.train_step == step
    assert vars(model).get("train_step") is instance.get("train_step")
    after = target.get_weights()[0]
    model.fit(x, y, sample_weight=w, verbose=0, callbacks=[])
    model.train_on_batch(x, y, w)
    np.testing.assert_array_equal(target.get_weights()[0], after)


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_evaluate_and_predict_leave_nothing(method, make_agent, make_batches):
    agent, (x, y, w) = make_agent(), make_batches()[0]
    agent.train_on_batch(x, y, w)
    function, step = agent.train_function, agent.train_step
    target = agent.target_network.get_weights()[0]
    if method == "evaluate":
        agent.evaluate(x, y, sample_weight=w, verbose=0, callbacks=[SoftTargetUpdate()])
    else:
        agent.predict(x, verbose=0, callbacks=[SoftTargetUpdate()])
    assert agent.train_function is function
    assert agent.train_step == step
    agent.train_on_batch(x, y, w)
    np.testing.assert_array_equal(agent.target_network.get_weights()[0], target)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["agent", "plain"])
def test_ctrl_c_is_survived(kind, make_agent, make_batches):
    if kind == "agent":
        model, (x, y, w) = make_agent(), make_batches()[0]
        target = model.target_network
        follow = lambda tau: SoftTargetUpdate(tau)  # noqa: E731
    else:
        (model, target), (x, y), w = plain_pair(), plain_data(4), None
        follow = lambda tau: SoftTargetUpdate(tau, source=model, target=target)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, sample_weight=w, verbose=0, callbacks=[follow(0.5), Interrupt()])
    before = target.get_weights()[0]
    model.fit(x, y, sample_weight=w, verbose=0, callbacks=[follow(0.25)])
    # Were the interrupted 0.5 still there, the target would have moved twice.
    expected = before + 0.25 * (model_weights(model, kind) - before)
    np.testing.assert_allclose(target.get_weights()[0], expected, atol=1e-6)
    model.fit(x, y, sample_weight=w, verbose=0)
    np.testing.assert_allclose(target.get_weights()[0], expected, atol=1e-6)


def model_weights(model, kind):
    return (model.network if kind == "agent" else model).get_weights()[0]


def test_interrupted_plain_model_stops_following_in_the_step():
    class Fails(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, inputs):
            return self.dense(inputs)

    x, y = plain_data(4)
    model, (_, target) = Fails(), plain_pair()
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="weights of the same shapes"):
        model.fit(x, y, verbose=0, callbacks=[SoftTargetUpdate(source=model, target=target)])
    model.fit(x, y, verbose=0)


class CountingAgent(keras_dqn.DQN):
    traces = 0

    def train_step(self, data):
        type(self).traces += 1
        return super().train_step(data)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_one_trace_over_many_fits(make_network, make_batches, as_dataset, steps_per_execution):
    CountingAgent.traces = 0
    agent = CountingAgent(make_network())
    agent.compile("sgd", steps_per_execution=steps_per_execution, jit_compile=False)
    copied = keras.models.clone_model(agent.network)
    for _ in range(3):
        agent.fit(
            as_dataset(make_batches(8)),
            epochs=2,
            verbose=0,
            callbacks=[SoftTargetUpdate(0.1), SoftTargetUpdate(1.0, 100, agent.network, copied)],
        )
    assert CountingAgent.traces == 1
    agent.compile("sgd", steps_per_execution=steps_per_execution, jit_compile=False)
    agent.fit(as_dataset(make_batches(8)), verbose=0, callbacks=[SoftTargetUpdate(0.1)])
    assert CountingAgent.traces == 2
    agent.fit(as_dataset(make_batches(8)), verbose=0, callbacks=[SoftTargetUpdate(0.2)])
    assert CountingAgent.traces == 3


def test_recompiled_model_uses_the_new_optimizer(make_agent, make_batches, as_dataset):
    agent = make_agent(optimizer=keras.optimizers.SGD(0.0))
    start = agent.network.get_weights()[0]
    agent.fit(as_dataset(make_batches(2)), verbose=0, callbacks=[SoftTargetUpdate(0.1)])
    np.testing.assert_array_equal(agent.network.get_weights()[0], start)
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    agent.fit(as_dataset(make_batches(2)), verbose=0, callbacks=[SoftTargetUpdate(0.1)])
    assert np.any(agent.network.get_weights()[0] != start)


def test_train_step_override_is_followed(make_network, make_batches, as_dataset):
    class Own(keras_dqn.DQN):
        def train_step(self, data):
            self.network.layers[0].bias.assign_add(keras.ops.ones(5))
            return {"answer": keras.ops.convert_to_tensor(42.0)}

    agent = Own(make_network())
    agent.compile("sgd", steps_per_execution=3)
    history = agent.fit(
        as_dataset(make_batches(6)), verbose=0, callbacks=[SoftTargetUpdate(1.0, 4)]
    )
    np.testing.assert_array_equal(agent.network.layers[0].bias.numpy(), np.full(5, 6.0))
    np.testing.assert_array_equal(agent.target_network.layers[0].bias.numpy(), np.full(5, 4.0))
    assert history.history["answer"] == [42.0]


def test_warns_once_without_any_target_update(make_agent, make_batches, as_dataset):
    agent = make_agent()
    with pytest.warns(UserWarning, match="SoftTargetUpdate"):
        agent.fit(as_dataset(make_batches(2)), verbose=0)
    agent.fit(as_dataset(make_batches(2)), verbose=0)


def test_no_warning_when_a_callback_updates_the_target(make_agent, make_batches, as_dataset):
    agent = make_agent()
    own = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: agent.update_target(0.5))
    agent.fit(as_dataset(make_batches(2)), verbose=0, callbacks=[own])
    agent.fit(as_dataset(make_batches(2)), verbose=0, callbacks=own)


@pytest.mark.parametrize("tau", [-0.1, 1.5, float("nan")])
def test_tau_outside_its_range(tau):
    with pytest.raises(ValueError, match=r"`tau` must be in \[0, 1\]. Received: tau="):
        SoftTargetUpdate(tau)


@pytest.mark.parametrize("update_freq", [0, -1, 1.5])
def test_update_freq_outside_its_range(update_freq):
    with pytest.raises(ValueError, match="`update_freq` must be an integer"):
        SoftTargetUpdate(0.1, update_freq)


def test_source_and_target_come_together():
    student, teacher = plain_pair()
    with pytest.raises(ValueError, match="`source` and `target` must be given together"):
        SoftTargetUpdate(source=student)
    with pytest.raises(ValueError, match="`source` and `target` must be given for a model"):
        student.fit(*plain_data(4), verbose=0, callbacks=[SoftTargetUpdate()])
    assert teacher.built


def test_unbuilt_agent_resolves_its_variables_when_traced(make_batches, as_dataset):
    network = keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])
    agent = keras_dqn.DQN(network)
    agent.compile(keras.optimizers.SGD(0.5), jit_compile=False)
    agent.fit(as_dataset(make_batches(3)), verbose=0, callbacks=[SoftTargetUpdate(1.0)])
    for a, b in zip(network.weights, agent.target_network.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_state_without_a_count_makes_no_variable():
    follow = SoftTargetUpdate(0.5)
    follow.set_state(SoftTargetUpdate(0.5).get_state())
    assert follow._own_count is None
    follow.set_state({"update_count": 3})
    assert follow.get_state() == {"update_count": 3}
    follow.set_state({"update_count": 0})
    assert follow.get_state() == {"update_count": 0}
