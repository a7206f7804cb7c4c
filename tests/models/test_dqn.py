import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import shake

import keras_dqn


def linear_agent(double=False, **compile_kwargs):
    """Q(o) = o * [1, 2] online and o * [30, 20] in the target: every choice of action differs."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    agent = keras_dqn.DQN(network, double=double)
    network.set_weights([np.array([[1.0, 2.0]])])
    agent.target_network.set_weights([np.array([[30.0, 20.0]])])
    agent.compile(
        keras.optimizers.SGD(0.1), **{"loss": "mse", "jit_compile": False, **compile_kwargs}
    )
    return agent


def one_batch(weight=(1.0, 1.0)):
    """Rows: o=1, a=0, r=5, discount 0.5, o'=2; and o=3, a=1, r=7, terminated, o'=99."""
    transition = {
        "action": np.array([0, 1], np.int32),
        "reward": np.array([5.0, 7.0], np.float32),
        "discount": np.array([0.5, 0.0], np.float32),
        "next_observation": np.array([[2.0], [99.0]], np.float32),
    }
    return np.array([[1.0], [3.0]], np.float32), transition, np.array(weight, np.float32)


# Targets of the first row: plain 5 + 0.5 * max(60, 40) = 35; double takes the online choice,
# action 1 (4 > 2), and its target value: 5 + 0.5 * 40 = 25. The second row terminated: 7.
# Predictions: Q(1, 0) = 1 and Q(3, 1) = 6.
@pytest.mark.parametrize(("double", "first"), [(False, 35.0), (True, 25.0)], ids=["dqn", "double"])
def test_td_errors_by_hand(double, first):
    np.testing.assert_allclose(linear_agent(double).td_errors(one_batch()), [first - 1.0, 1.0])


@pytest.mark.parametrize("run_eagerly", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize(("double", "error"), [(False, 34.0), (True, 24.0)], ids=["dqn", "double"])
def test_one_update_by_hand(double, error, run_eagerly):
    agent = linear_agent(double, run_eagerly=run_eagerly, jit_compile="auto")
    observation, transition, weight = one_batch(weight=(0.5, 2.0))
    logs = agent.train_on_batch(observation, transition, weight, return_dict=True)
    # loss = (0.5 * error^2 + 2 * 1^2) / 2; its gradient by the first weight is
    # -2 * 0.5 * error * 1 / 2, by the second -2 * 2 * 1 * 3 / 2 = -6.
    assert logs["loss"] == pytest.approx((0.5 * error**2 + 2.0) / 2)
    assert logs["q_value"] == pytest.approx((1.0 + 6.0) / 2)
    assert logs["abs_td_error"] == pytest.approx((error + 1.0) / 2)
    expected = [[1.0 + 0.1 * 0.5 * error, 2.0 + 0.1 * 6.0]]
    np.testing.assert_allclose(agent.network.get_weights()[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(agent.target_network.get_weights()[0], [[30.0, 20.0]])


def test_huber_is_the_default_loss():
    agent = linear_agent(loss="auto")
    # Huber with delta 1: |34| - 0.5 and 0.5 * 1^2, over two rows.
    logs = agent.test_on_batch(*one_batch(), return_dict=True)
    assert logs["loss"] == pytest.approx((33.5 + 0.5) / 2)


def test_compile_without_arguments_trains(make_network, make_batches):
    agent = keras_dqn.DQN(make_network())
    agent.compile()
    before = agent.network.get_weights()
    agent.train_on_batch(*make_batches()[0])
    assert any(np.any(a != b) for a, b in zip(before, agent.network.get_weights(), strict=True))


@pytest.mark.parametrize("loss", ["huber", "mse", "mae"])
def test_weight_zero_means_no_gradient(make_agent, make_batches, loss):
    agent = make_agent(loss=loss)
    observation, transition, weight = make_batches()[0]
    before = agent.network.get_weights()
    agent.train_on_batch(observation, transition, np.zeros_like(weight))
    for a, b in zip(before, agent.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weight_zero_row_equals_a_batch_without_it(make_agent, make_batches):
    observation, transition, weight = make_batches(batch_size=4)[0]
    weight[2] = 0.0
    full, short = make_agent(), make_agent()
    short.set_weights(full.get_weights())
    full.train_on_batch(observation, transition, weight)
    keep = np.array([0, 1, 3])
    # The mean is over the batch size, so three rows weigh 3/4 as much each.
    short.train_on_batch(
        observation[keep], {k: v[keep] for k, v in transition.items()}, weight[keep] * 0.75
    )
    for a, b in zip(full.network.get_weights(), short.network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_weight_zero_means_no_gradient_of_extra_loss(make_network, make_batches):
    class Extra(keras_dqn.DQN):
        def extra_loss(self, outputs, action):
            return keras.ops.sum(outputs**2, axis=-1)

    agent = Extra(make_network())
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    observation, transition, weight = make_batches()[0]
    before = agent.network.get_weights()
    agent.train_on_batch(observation, transition, np.zeros_like(weight))
    np.testing.assert_array_equal(before[0], agent.network.get_weights()[0])
    agent.train_on_batch(observation, transition, weight)
    assert np.any(before[0] != agent.network.get_weights()[0])


def test_permuted_batch_gives_the_same_update(make_agent, make_batches):
    observation, transition, weight = make_batches(batch_size=6)[0]
    order = np.array([3, 1, 5, 0, 2, 4])
    one, other = make_agent(), make_agent()
    other.set_weights(one.get_weights())
    one.train_on_batch(observation, transition, weight)
    other.train_on_batch(
        observation[order], {k: v[order] for k, v in transition.items()}, weight[order]
    )
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_target_is_equal_at_build_and_a_network_of_its_own(make_network):
    network = make_network()
    agent = keras_dqn.DQN(network)
    assert agent.network is network
    assert agent.target_network is not network
    for a, b in zip(network.get_weights(), agent.target_network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    network.set_weights([w + 1.0 for w in network.get_weights()])
    assert np.any(network.get_weights()[0] != agent.target_network.get_weights()[0])


def set_all(agent):
    agent.trainable = False
    agent.trainable = True


def set_target(agent):
    agent.target_network.trainable = True


def set_target_layers(agent):
    agent.target_network.trainable = True
    for layer in agent.target_network.layers:
        layer.trainable = True
    for variable in agent.target_network.variables:
        variable.trainable = True


@pytest.mark.parametrize("thaw", [set_all, set_target, set_target_layers])
def test_target_never_gets_a_gradient(make_agent, make_batches, thaw):
    agent = make_agent(optimizer=keras.optimizers.AdamW(0.1, weight_decay=0.1))
    thaw(agent)
    before = agent.target_network.get_weights()
    agent.train_on_batch(*make_batches()[0])
    for a, b in zip(before, agent.target_network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    ours = {id(v) for v in agent.trainable_variables}
    assert ours == {id(v) for v in agent.network.trainable_variables}
    assert not ours & {id(v) for v in agent.non_trainable_variables}
    assert len(agent.variables) == len(ours) + len(agent.non_trainable_variables)
    assert len(agent.weights) == len(agent.trainable_weights) + len(agent.non_trainable_weights)


def test_frozen_layer_stays_and_the_rest_learns(make_network, make_batches):
    network = make_network()
    network.layers[0].trainable = False
    agent = keras_dqn.DQN(network)
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    before = network.get_weights()
    agent.train_on_batch(*make_batches()[0])
    np.testing.assert_array_equal(before[0], network.get_weights()[0])
    assert np.any(before[2] != network.get_weights()[2])


class Subclassed(keras.Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, "tanh")
        self.values = keras.layers.Dense(2)

    def call(self, inputs):
        return self.values(self.hidden(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class WithoutConfig(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.values = keras.layers.Dense(2)

    def call(self, inputs):
        return self.values(self.layer(inputs))


class WithoutKwargs(keras.Model):
    def __init__(self):
        super().__init__()
        self.values = keras.layers.Dense(2)

    def call(self, inputs):
        return self.values(inputs)


def functional(inputs=3):
    x = keras.Input((inputs,))
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Dense(4, "tanh")(x)))


def unbuilt_sequential():
    return keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])


NETWORKS = {
    "functional": functional,
    "unbuilt sequential": unbuilt_sequential,
    "subclassed": lambda: Subclassed(4),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("double", [False, True], ids=["dqn", "double"])
def test_kinds_of_networks_train_and_act(make, double, make_batches, as_dataset):
    agent = keras_dqn.DQN(make(), double=double)
    jit_compile = "auto" if double else False
    agent.compile(keras.optimizers.Adam(0.01), steps_per_execution=2, jit_compile=jit_compile)
    batches = make_batches(4)
    agent.fit(as_dataset(batches), epochs=2, verbose=0, callbacks=[keras_dqn.SoftTargetUpdate(0.1)])
    assert agent.act(batches[0][0]).shape == (4,)
    assert np.any(agent.network.get_weights()[0] != agent.target_network.get_weights()[0])


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_unbuilt_networks_start_equal(make):
    agent = keras_dqn.DQN(make())
    agent.act(np.ones((1, 3), np.float32))
    for a, b in zip(agent.network.weights, agent.target_network.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize(
    "make", [lambda: WithoutConfig(keras.layers.Dense(3)), WithoutKwargs], ids=["layer", "kwargs"]
)
def test_network_without_get_config_names_the_remedy(make):
    with pytest.raises(TypeError, match="get_config"):
        keras_dqn.DQN(make())


@pytest.mark.parametrize("network", ["dense", lambda x: x, None], ids=["str", "lambda", "None"])
def test_network_must_be_a_layer(network):
    with pytest.raises(TypeError, match="`network` must be a Keras model or layer"):
        keras_dqn.DQN(network)


def dict_network():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    return keras.Model(
        inputs, keras.layers.Dense(2)(keras.layers.Concatenate()([*inputs.values()]))
    )


def test_dict_observations(make_batches, as_dataset, tmp_path):
    (batch,) = make_batches()
    rng = np.random.default_rng(0)

    def observation():
        return {
            "a": rng.normal(size=(4, 3)).astype(np.float32),
            "b": rng.normal(size=(4, 2)).astype(np.float32),
        }

    x = observation()
    batch = (x, {**batch[1], "next_observation": observation()}, batch[2])
    agent = keras_dqn.DQN(dict_network(), double=True)
    agent.compile(keras.optimizers.SGD(0.1), steps_per_execution=2)
    agent.fit(as_dataset([batch] * 2), verbose=0, callbacks=[keras_dqn.SoftTargetUpdate()])
    actions = agent.act(x)
    np.testing.assert_array_equal(actions, agent.predict(x, verbose=0).argmax(-1))
    assert agent.act({k: v[1] for k, v in x.items()}) == actions[1]
    np.testing.assert_allclose(
        agent.policy().action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
    )
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), agent.predict(x, verbose=0))


def test_act_takes_one_observation_or_many(make_agent):
    agent = make_agent()
    observations = np.random.default_rng(0).normal(size=(7, 3))
    many = agent.act(observations)
    assert many.shape == (7,)
    assert many.dtype == np.int64
    one = agent.act(observations[2])
    assert one.shape == ()
    assert one.dtype == np.int64
    assert one == many[2]


def test_act_reads_the_weights_of_now(make_agent):
    agent = make_agent()
    observation = np.zeros((1, 3), np.float32)
    for best in (0, 1, 0):
        agent.network.layers[-1].bias.assign(np.eye(2)[best])
        assert agent.act(observation) == [best]


def test_predict_gives_what_the_network_gives(make_agent):
    agent = make_agent()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(agent.predict(x, verbose=0), agent.network(x).numpy(), atol=1e-6)


def test_metrics_of_compile_see_target_and_prediction():
    agent = linear_agent(metrics=["mae", keras.metrics.MeanSquaredError()])
    logs = agent.test_on_batch(*one_batch(), return_dict=True)
    assert logs["mae"] == pytest.approx((34.0 + 1.0) / 2)
    assert logs["mean_squared_error"] == pytest.approx((34.0**2 + 1.0) / 2)


def test_a_metric_named_td_error_is_refused(make_batches):
    agent = linear_agent(metrics=[keras.metrics.MeanAbsoluteError(name="td_error")])
    with pytest.raises(ValueError, match="A metric must not be named `td_error`"):
        agent.train_on_batch(*one_batch())


def test_rank_1_target_is_refused(make_network, make_batches):
    class Flat(keras_dqn.DQN):
        def compute_target(self, observation, transition):
            return transition["reward"]

    agent = Flat(make_network())
    agent.compile("sgd")
    with pytest.raises(ValueError, match=r"`compute_target` must return .* \[B, 1\]"):
        agent.train_on_batch(*make_batches()[0])


def test_rank_1_prediction_is_refused(make_network, make_batches):
    class Flat(keras_dqn.DQN):
        def predict_taken(self, outputs, action):
            return outputs[:, 0]

    agent = Flat(make_network())
    agent.compile("sgd")
    with pytest.raises(ValueError, match=r"`predict_taken` must return .* \[B, 1\]"):
        agent.train_on_batch(*make_batches()[0])


def test_network_output_of_another_rank_is_refused(make_batches):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Reshape((3, 1))])
    agent = keras_dqn.DQN(network)
    agent.compile("sgd")
    with pytest.raises(ValueError, match=r"`network` must map .* \[B, A\]"):
        agent.train_on_batch(*make_batches()[0])


def test_add_loss_of_the_target_does_not_leak(make_batches):
    network = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, activity_regularizer="l2", use_bias=False)]
    )
    agent = keras_dqn.DQN(network, double=True)
    agent.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=False)
    shake(agent.target_network)
    observation, transition, weight = make_batches()[0]
    td = agent.td_errors((observation, transition, weight))
    network(observation)
    activity = float(network.losses[0])
    network(transition["next_observation"])
    assert float(network.losses[0]) != pytest.approx(activity)
    logs = agent.test_on_batch(observation, transition, weight, return_dict=True)
    assert logs["loss"] == pytest.approx(np.mean(weight * td**2) + activity, rel=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains(policy, make_batches, as_dataset):
    keras.config.set_dtype_policy(policy)
    try:
        network = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)]
        )
        agent = keras_dqn.DQN(network)
        agent.compile(keras.optimizers.SGD(0.1), loss="mse", steps_per_execution=2)
    finally:
        keras.config.set_dtype_policy("float32")
    shake(agent.target_network)
    # 1000 + 70 is no float16: the target has to be computed in float32.
    batch = make_batches()[0]
    batch[1]["reward"][:] = 70_000.0
    assert np.isfinite(agent.td_errors(batch)).all()
    batches = make_batches(4)
    before = agent.network.get_weights()[0]
    history = agent.fit(
        as_dataset(batches), epochs=8, verbose=0, callbacks=[keras_dqn.SoftTargetUpdate(0.0)]
    ).history["loss"]
    assert history[-1] < history[0]
    assert np.any(agent.network.get_weights()[0] != before)


@pytest.mark.parametrize("jit_compile", [True, False], ids=["xla", "no xla"])
def test_jit_compile_changes_nothing(make_agent, make_batches, as_dataset, jit_compile):
    plain, other = (
        make_agent(run_eagerly=True),
        make_agent(jit_compile=jit_compile, steps_per_execution=3),
    )
    other.set_weights(plain.get_weights())
    batches = make_batches(6)
    for agent in (plain, other):
        agent.fit(as_dataset(batches), verbose=0, callbacks=[keras_dqn.SoftTargetUpdate(0.1)])
    for a, b in zip(plain.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_jit_is_off_for_convolutions_without_accelerator(make_agent):
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.conv = keras.layers.Conv2D(2, 3)

        def call(self, inputs):
            return self.conv(inputs)

    convolutional = keras.Sequential(
        [keras.Input((8, 8, 1)), Block(), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    has_accelerator = any(d.device_type != "CPU" for d in tf.config.list_physical_devices())
    auto = {"jit_compile": "auto"}
    assert make_agent(convolutional, **auto).jit_compile is has_accelerator
    assert make_agent(**auto).jit_compile is True
    assert make_agent(**auto, run_eagerly=True).jit_compile is False


def test_update_target(make_agent):
    agent = make_agent()
    online, target = agent.network.get_weights(), agent.target_network.get_weights()
    agent.update_target(0.25)
    for a, b, c in zip(online, target, agent.target_network.get_weights(), strict=True):
        np.testing.assert_allclose(c, b + 0.25 * (a - b), rtol=1e-6)
    agent.update_target()
    for a, c in zip(online, agent.target_network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, c)
    with pytest.raises(ValueError, match="`tau` must be in"):
        agent.update_target(1.5)


def test_dropout_of_the_target_has_draws_of_its_own():
    network = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dropout(0.5, seed=7), keras.layers.Dense(2)]
    )
    agent = keras_dqn.DQN(network)
    ones = np.ones((64, 3), np.float32)
    mask = network.layers[0](ones, training=True).numpy()
    target_mask = agent.target_network.layers[0](ones, training=True).numpy()
    assert np.any(mask != target_mask)


def test_batch_norm_statistics_move_only_with_the_online_batch(make_batches):
    network = keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization(momentum=0.0), keras.layers.Dense(2)]
    )
    agent = keras_dqn.DQN(network, double=True)
    agent.compile("sgd", jit_compile=False)
    observation, transition, weight = make_batches(batch_size=8)[0]
    agent.train_on_batch(observation, transition, weight)
    mean = network.layers[0].moving_mean.numpy()
    np.testing.assert_allclose(mean, observation.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(agent.target_network.layers[0].moving_mean.numpy(), np.zeros(3))


def test_config_round_trip(make_network):
    agent = keras_dqn.DQN(make_network(), double=True, name="learner")
    config = agent.get_config()
    again = keras_dqn.DQN.from_config(config)
    assert again.double is True
    assert again.name == "learner"
    serialized = keras.saving.serialize_keras_object(agent)
    assert serialized["registered_name"] == "keras_dqn>DQN"
    import json

    assert json.dumps(again.get_config(), sort_keys=True) == json.dumps(config, sort_keys=True)


def test_subclass_may_add_layers_and_metrics_after_init(make_network, make_batches):
    class Scaled(keras_dqn.DQN):
        def __init__(self, network, **kwargs):
            super().__init__(network, **kwargs)
            self.scale = self.add_weight(name="scale", initializer="ones")
            self.seen = keras.metrics.Mean("seen")
            self.extra = keras.layers.Dense(2)

        def predict_taken(self, outputs, action):
            return super().predict_taken(outputs, action) * self.scale

    agent = Scaled(make_network())
    agent.compile("sgd", jit_compile=False)
    agent.train_on_batch(*make_batches()[0])
    assert agent.scale.numpy() != 1.0


def test_an_adapted_normalization_is_the_targets_too(make_batches):
    data = np.random.default_rng(0).normal(50.0, 9.0, size=(200, 3)).astype(np.float32)
    normalization = keras.layers.Normalization()
    normalization.adapt(data)
    network = keras.Sequential([keras.Input((3,)), normalization, keras.layers.Dense(2)])
    agent = keras_dqn.DQN(network)
    # By hand: the standardised inputs times the kernel.
    standardised = (data - data.mean(axis=0)) / data.std(axis=0)
    values = standardised @ network.layers[-1].kernel.numpy()
    np.testing.assert_allclose(agent.target_network(data), values, atol=1e-4)
    np.testing.assert_allclose(network(data), values, atol=1e-4)
