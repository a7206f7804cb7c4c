"""What each representation of values refuses, its config, its defaults, and its outputs."""

import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn.models.implicit_quantile_network import ImplicitQuantileNetwork

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def network(*shape):
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(int(np.prod(shape))),
            keras.layers.Reshape(shape),
        ]
    )


def torso():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(6, "relu")])


MAKE = {
    "plain": lambda **kwargs: keras_dqn.DQN(network(2), **kwargs),
    "c51": lambda **kwargs: keras_dqn.CategoricalDQN(
        network(2, 5), num_atoms=5, v_min=-1.0, v_max=3.0, **kwargs
    ),
    "hl_gauss": lambda **kwargs: keras_dqn.HLGaussDQN(
        network(2, 4), num_bins=4, v_min=-1.0, v_max=3.0, sigma_ratio=0.5, **kwargs
    ),
    "quantiles": lambda **kwargs: keras_dqn.QuantileDQN(network(2, 7), num_quantiles=7, **kwargs),
    "implicit": lambda **kwargs: keras_dqn.ImplicitQuantileDQN(
        torso(),
        keras.layers.Dense(2),
        num_cosines=4,
        num_quantiles=3,
        num_target_quantiles=5,
        seed=1,
        **kwargs,
    ),
}
BY_KIND = pytest.mark.parametrize("kind", MAKE)


@BY_KIND
def test_config_round_trip(kind):
    agent = MAKE[kind](munchausen=keras_dqn.Munchausen(0.5, 0.1, -2.0), conservative=0.25)
    again = type(agent).from_config(agent.get_config())
    assert again.get_config() == agent.get_config()
    assert again.munchausen.get_config() == {"alpha": 0.5, "temperature": 0.1, "clip": -2.0}
    assert (again.double, again.conservative) == (False, 0.25)


@BY_KIND
def test_save_and_load(kind, tmp_path):
    agent = MAKE[kind](double=True)
    agent.compile("adam", jit_compile=False)
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert type(loaded) is type(agent)
    assert loaded.double
    for one, other in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(agent.act(X), loaded.act(X))
    np.testing.assert_allclose(
        loaded.policy().action_values(X), agent.q_values(agent(X)), rtol=1e-4, atol=1e-5
    )


@BY_KIND
def test_double_with_munchausen_is_refused(kind):
    with pytest.raises(ValueError, match=r"`double` must be False with `munchausen`: its next act"):
        MAKE[kind](double=True, munchausen=keras_dqn.Munchausen())


@BY_KIND
def test_an_exported_policy_acts_as_the_agent(kind, tmp_path):
    import tensorflow as tf

    agent = MAKE[kind]()
    agent.export_policy(tmp_path / "policy", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "policy"))
    np.testing.assert_array_equal(exported.serve(X), agent.act(X))


def test_defaults():
    c51 = keras_dqn.CategoricalDQN(network(2, 51), v_min=-10.0, v_max=10.0)
    np.testing.assert_allclose(c51.support, np.linspace(-10, 10, 51), rtol=1e-6)
    hl_gauss = keras_dqn.HLGaussDQN(network(2, 51), v_min=-10.2, v_max=10.2)
    np.testing.assert_allclose(hl_gauss.support, np.linspace(-10, 10, 51), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(hl_gauss.edges[[0, 1, -1]], [-10.2, -9.8, 10.2], rtol=1e-6)
    assert (hl_gauss.num_bins, hl_gauss.sigma_ratio) == (51, 0.75)
    assert keras_dqn.QuantileDQN(network(2, 51)).num_quantiles == 51
    implicit = keras_dqn.ImplicitQuantileDQN(torso(), keras.layers.Dense(2))
    sizes = (implicit.num_cosines, implicit.num_quantiles, implicit.num_target_quantiles)
    assert sizes == (64, 8, 8)
    rule = keras_dqn.Munchausen()
    assert (rule.alpha, rule.temperature, rule.clip) == (0.9, 0.03, -1.0)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("plain", keras.losses.Huber),
        ("c51", keras.losses.CategoricalCrossentropy),
        ("hl_gauss", keras.losses.CategoricalCrossentropy),
        ("quantiles", keras_dqn.losses.QuantileHuber),
        ("implicit", keras_dqn.losses.QuantileHuber),
    ],
)
def test_the_default_loss(kind, loss):
    default = MAKE[kind]().default_loss()
    assert type(default) is loss
    if loss is keras_dqn.losses.QuantileHuber:
        assert default.kappa == 1.0


LOGITS, QUANTILES = r"CategoricalCrossentropy\(from_logits=True\)", "QuantileHuber"


@pytest.mark.parametrize(
    "loss",
    [
        "huber",
        "categorical_crossentropy",  # takes probabilities
        keras.losses.huber,
        keras.losses.MeanSquaredError(),
        keras.losses.CategoricalCrossentropy(),
    ],
    ids=["string", "of probabilities", "function", "object", "without from_logits"],
)
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("c51", LOGITS), ("hl_gauss", LOGITS), ("quantiles", QUANTILES), ("implicit", QUANTILES)],
)
def test_losses_that_do_not_fit_are_refused(kind, expected, loss):
    with pytest.raises(
        ValueError, match=rf"`loss` must be {expected} or a loss of your own.*loss="
    ):
        MAKE[kind]().compile("adam", loss=loss)


def test_losses_that_fit_are_taken(tmp_path):
    def own_loss(target, prediction):
        return keras.ops.mean(prediction, axis=-1)

    smooth = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    for kind, losses in (
        ("plain", ["mse", keras.losses.Huber(2.0)]),
        ("c51", [smooth, own_loss]),
        ("hl_gauss", [smooth]),
        ("quantiles", [keras_dqn.losses.QuantileHuber(0.5), own_loss]),
    ):
        for loss in losses:
            agent = MAKE[kind]()
            agent.compile("adam", loss=loss, jit_compile=False)
            assert agent.loss is loss
    with pytest.raises(ValueError, match=f"`loss` must be {LOGITS}"):
        MAKE["c51"]().compile("adam", loss=keras_dqn.losses.QuantileHuber())


BAD = {
    "no v_min": (lambda: keras_dqn.CategoricalDQN(network(2, 51), v_max=1.0), TypeError, "v_min"),
    "v_min": (
        lambda: keras_dqn.CategoricalDQN(network(2, 51), v_min=1.0, v_max=1.0),
        ValueError,
        r"`v_min` must be below `v_max`\. Received: v_min=1.0, v_max=1.0",
    ),
    "v_max": (
        lambda: keras_dqn.HLGaussDQN(network(2, 51), v_min=1.0, v_max="x"),
        TypeError,
        "`v_max` must be a number",
    ),
    "huge v_min": (
        lambda: keras_dqn.CategoricalDQN(network(2, 51), v_min=-3e38, v_max=3e38),
        ValueError,
        r"`v_min` must be in \[-1e\+30, 1e\+30\]",
    ),
    "uneven atoms": (
        lambda: keras_dqn.CategoricalDQN(network(2, 51), v_min=1e6, v_max=1e6 + 10),
        ValueError,
        "`v_min` and `v_max` must be far enough apart for 51 float32 numbers at even dist",
    ),
    "close v_min": (
        lambda: keras_dqn.HLGaussDQN(network(2, 51), v_min=1e9, v_max=1e9 + 1),
        ValueError,
        "`v_min` and `v_max` must be far enough apart for 52 float32 numbers at even dist",
    ),
    "num_atoms": (
        lambda: keras_dqn.CategoricalDQN(network(2, 51), num_atoms=1, v_min=0.0, v_max=1.0),
        ValueError,
        "`num_atoms` must be at least 2",
    ),
    "num_bins": (
        lambda: keras_dqn.HLGaussDQN(network(2, 51), num_bins=1.5, v_min=0.0, v_max=1.0),
        ValueError,
        "`num_bins` must be an integer",
    ),
    "sigma_ratio": (
        lambda: keras_dqn.HLGaussDQN(network(2, 51), v_min=0.0, v_max=1.0, sigma_ratio=0.0),
        ValueError,
        "`sigma_ratio` must be above 0",
    ),
    "num_quantiles": (
        lambda: keras_dqn.QuantileDQN(network(2, 51), num_quantiles=0),
        ValueError,
        "`num_quantiles` must be at least 1",
    ),
    "other num_atoms": (
        lambda: keras_dqn.CategoricalDQN(network(2, 5), v_min=0.0, v_max=1.0).act(X),
        ValueError,
        r"shape \[B, A, 51\], because `num_atoms` is 51\. Received: outputs of shape \(4, 2, 5\)",
    ),
    "other rank": (
        lambda: keras_dqn.QuantileDQN(network(51)).act(X),
        ValueError,
        r"`network` must map observations to outputs of shape \[B, A, 51\]",
    ),
    "torso": (
        lambda: keras_dqn.ImplicitQuantileDQN(3, keras.layers.Dense(2)),
        TypeError,
        "`torso` must be a Keras model or layer",
    ),
    "head": (
        lambda: keras_dqn.ImplicitQuantileDQN(torso(), None),
        TypeError,
        "`head` must be a Keras model or layer",
    ),
    "shape of torso": (
        lambda: keras_dqn.ImplicitQuantileDQN(network(2, 3), keras.layers.Dense(2)),
        ValueError,
        r"`torso` must map observations to features of shape \[B, F\]",
    ),
    "num_target_quantiles": (
        lambda: keras_dqn.ImplicitQuantileDQN(
            torso(), keras.layers.Dense(2), num_target_quantiles=0
        ),
        ValueError,
        "`num_target_quantiles` must be at least 1",
    ),
    "risk": (
        lambda: keras_dqn.ImplicitQuantileDQN(torso(), keras.layers.Dense(2), risk=0.25),
        TypeError,
        "`risk` must be a function of fractions or None",
    ),
    "range of risk": (
        lambda: keras_dqn.ImplicitQuantileDQN(torso(), keras.layers.Dense(2), risk=lambda f: 2 * f),
        ValueError,
        r"`risk` must map 32 fractions to 32 in \[0, 1\]",
    ),
    "munchausen": (
        lambda: keras_dqn.DQN(network(2), munchausen=True),
        TypeError,
        "`munchausen` must be a keras_dqn.Munchausen or None",
    ),
    "conservative": (
        lambda: keras_dqn.DQN(network(2), conservative=-1.0),
        ValueError,
        "`conservative` must be at least 0",
    ),
    "alpha": (lambda: keras_dqn.Munchausen(alpha=1.5), ValueError, r"`alpha` must be in \[0, 1\]"),
    "temperature": (
        lambda: keras_dqn.Munchausen(temperature=0.0),
        ValueError,
        "`temperature` must be above 0",
    ),
    "clip": (
        lambda: keras_dqn.Munchausen(clip=0.0),
        ValueError,
        r"`clip` must be below 0\. Received: clip=0.0",
    ),
}


@pytest.mark.parametrize(("call", "error", "match"), BAD.values(), ids=BAD)
def test_nonsense_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_dict_of_observations_and_an_unbuilt_torso():
    class Torso(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(5, "relu")

        def build(self, input_shape):
            self.dense.build((None, 5))

        def call(self, inputs):
            return self.dense(keras.ops.concatenate([inputs["a"], inputs["b"]], axis=-1))

        def compute_output_shape(self, input_shape):
            return (None, 5)

    agent = keras_dqn.ImplicitQuantileDQN(Torso(), keras.layers.Dense(2), num_cosines=4)
    observation = {"a": X[:, :2], "b": X}
    assert agent.act(observation).shape == (4,)
    np.testing.assert_allclose(
        agent.policy().action_values(observation), agent(observation)["q_values"], rtol=1e-4
    )
    np.testing.assert_allclose(
        agent.network.get_weights()[0], agent.target_network.get_weights()[0]
    )


@pytest.mark.parametrize(
    ("parent", "built"),
    [(keras.layers.Layer, False), (keras.Model, False), (keras.Model, True)],
    ids=["layer", "model", "built-model"],
)
def test_a_torso_and_a_head_that_only_define_call(parent, built):
    class Part(parent):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.dense = keras.layers.Dense(units)

        def call(self, inputs):
            return self.dense(inputs)

        def get_config(self):
            return {"name": self.name, "units": self.units}

    torso, head = Part(5), Part(2)
    if built:
        head(torso(X))
    agent = keras_dqn.ImplicitQuantileDQN(torso, head, num_cosines=4)
    assert agent.act(X).shape == (4,)
    values = agent.q_values(agent.outputs_of(agent.target_network, X))
    np.testing.assert_allclose(values, agent.q_values(agent(X)), rtol=1e-6)


def test_a_torso_in_mixed_precision_and_a_head_in_float32():
    layers = [keras.Input((3,)), keras.layers.Dense(6, "relu", dtype="mixed_float16")]
    agent = keras_dqn.ImplicitQuantileDQN(keras.Sequential(layers), keras.layers.Dense(2))
    assert agent.act(X).shape == (4,)
    assert agent(X)["q_values"].dtype == "float32"


def test_fractions_reach_the_embedding_in_float32_in_mixed_precision():
    single = keras_dqn.ImplicitQuantileDQN(torso(), keras.layers.Dense(2), num_quantiles=8)
    layers = [keras.Input((3,)), keras.layers.Dense(6, "relu", dtype="mixed_bfloat16")]
    network = ImplicitQuantileNetwork(
        keras.Sequential(layers), keras.layers.Dense(2), dtype="mixed_bfloat16"
    )
    network.set_weights(single.network.get_weights())
    fractions = np.random.default_rng(0).uniform(size=(4, 8)).astype(np.float32)
    parts = [keras.ops.convert_to_tensor(fractions)]
    values = keras.ops.cast(network(X, parts), "float32")
    np.testing.assert_allclose(values, single.network(X, parts), atol=0.05)


def test_a_lambda_in_a_torso():
    layers = [keras.Input((3,)), keras.layers.Lambda(lambda x: 2.0 * x), keras.layers.Dense(4)]
    agent = keras_dqn.ImplicitQuantileDQN(keras.Sequential(layers), keras.layers.Dense(2))
    values = agent.q_values(agent.outputs_of(agent.target_network, X))
    np.testing.assert_allclose(values, agent.q_values(agent(X)), rtol=1e-6)


@keras.saving.register_keras_serializable("tests")
def worst_quarter(fractions):
    return 0.25 * fractions


def test_risk_is_saved(tmp_path):
    agent = MAKE["implicit"](risk=worst_quarter)
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert loaded.risk is worst_quarter
    np.testing.assert_array_equal(loaded(X)["q_values"], agent(X)["q_values"])
    neutral = MAKE["implicit"]()
    neutral.set_weights(agent.get_weights())
    assert np.abs(np.asarray(neutral(X)["q_values"]) - agent(X)["q_values"]).max() > 1e-4
