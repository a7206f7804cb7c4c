import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import shake

import keras_dqn
from keras_dqn.acting import litert_converter, litert_program
from keras_dqn.acting.native_log import native_log_silenced
from keras_dqn.acting.policy import policy_of


def stack(*layers, shape=(6,), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers, keras.layers.Dense(3)])


L = keras.layers
NETWORKS = {
    "dense": lambda: stack(L.Dense(8, "relu"), L.Dense(8, "gelu")),
    "layer norm": lambda: stack(L.Dense(8), L.LayerNormalization()),
    "batch norm": lambda: stack(L.Dense(8), L.BatchNormalization()),
    "dropout": lambda: stack(L.Dense(8), L.Dropout(0.5, seed=1)),
    "lambda": lambda: stack(L.Lambda(lambda x: x * 2.0 + 1.0)),
    "rescaled uint8": lambda: stack(L.Rescaling(1 / 255), L.Dense(8), dtype="uint8"),
    "flatten": lambda: stack(L.Flatten(), L.Dense(8), shape=(2, 3)),
    "embedding": lambda: stack(L.Embedding(5, 4), L.Flatten(), shape=(1,), dtype="int32"),
    "lstm": lambda: stack(L.LSTM(4), shape=(5, 2)),
    "convolution": lambda: stack(L.Conv2D(2, 3), L.Flatten(), shape=(6, 6, 1)),
    "attention": lambda: stack(
        L.Reshape((3, 2)), L.EinsumDense("abc,cd->abd", (3, 4)), L.Flatten()
    ),
}


def observations(network, count):
    rng = np.random.default_rng(0)
    shape = (count, *network.input_shape[1:])
    dtype = network.inputs[0].dtype
    if dtype == "float32":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 5, size=shape).astype(dtype)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_values_equal_the_network(make):
    agent = keras_dqn.DQN(make())
    policy = agent.policy()
    for count in (1, 5):
        x = observations(agent.network, count)
        np.testing.assert_allclose(
            policy.action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
        )
        np.testing.assert_array_equal(policy(x), agent.act(x))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_refresh_reads_every_change_of_the_weights(make):
    agent = keras_dqn.DQN(make())
    policy = agent.policy()
    x = observations(agent.network, 4)
    before = policy.action_values(x).copy()
    shake(agent.network)
    np.testing.assert_array_equal(policy.action_values(x), before)
    policy.refresh()
    assert np.any(policy.action_values(x) != before)
    np.testing.assert_allclose(
        policy.action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
    )


def test_statistics_of_batch_norm_are_read_again(make_batches, as_dataset):
    agent = keras_dqn.DQN(
        keras.Sequential([keras.Input((3,)), L.BatchNormalization(momentum=0.1), L.Dense(2)])
    )
    agent.compile("sgd", jit_compile=False)
    policy = agent.policy()
    x = make_batches()[0][0]
    policy.action_values(x)
    agent.fit(as_dataset(make_batches(4)), verbose=0, callbacks=[keras_dqn.SoftTargetUpdate()])
    policy.refresh()
    np.testing.assert_allclose(
        policy.action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
    )


def test_rule_that_chooses(monkeypatch, make_agent):
    agent = make_agent()
    assert agent.policy().backend == "litert"
    assert keras_dqn.DQN(NETWORKS["convolution"]()).policy().backend == "compiled"
    monkeypatch.setattr(litert_program, "Interpreter", None)
    policy = agent.policy()
    assert policy.backend == "compiled"  # as long as it was not called
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(policy.action_values(x), agent.predict(x, verbose=0), atol=1e-5)
    assert policy.backend == "numpy"


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_without_litert_values_equal_the_network(make, monkeypatch):
    monkeypatch.setattr(litert_program, "Interpreter", None)
    agent = keras_dqn.DQN(make())
    policy = agent.policy()
    for count in (1, 5):
        x = observations(agent.network, count)
        np.testing.assert_allclose(
            policy.action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
        )
    shake(agent.network)
    policy.refresh()
    np.testing.assert_allclose(policy.action_values(x), agent.network(x), rtol=0, atol=1e-5)


def test_numpy_computes_stacks_of_dense_layers(monkeypatch):
    monkeypatch.setattr(litert_program, "Interpreter", None)
    layers = (L.Rescaling(0.5, 1.0), L.Dense(8, "relu"), L.Dense(8, "tanh", use_bias=False))
    for dtype in ("float32", "float64", "uint8"):
        agent = keras_dqn.DQN(stack(*layers))
        policy = agent.policy()
        x = np.random.default_rng(0).integers(0, 9, (4, 6)).astype(dtype)
        values = policy.action_values(x)
        assert (policy.backend, values.dtype) == ("numpy", np.float32)
        np.testing.assert_allclose(values, agent.network(x), rtol=0, atol=1e-5)
    values = policy.action_values(x[:2].astype(np.float64) / 7.0)  # another dtype, one policy
    np.testing.assert_allclose(values, agent.network(x[:2] / 7.0), rtol=0, atol=1e-5)
    assert values.dtype == np.float32


def test_numpy_computes_what_an_agent_makes_of_its_outputs(monkeypatch):
    class Shifted(keras_dqn.DQN):
        def outputs_of(self, network, observation, training=False):
            return network(observation["a"] - observation["b"], training=training)

        def q_values(self, outputs):
            return outputs * 2.0

    monkeypatch.setattr(litert_program, "Interpreter", None)
    agent = Shifted(stack(L.Dense(4)))
    policy = agent.policy()
    x = {name: observations(agent.network, 3) for name in ("b", "a")}
    x["a"] = x["a"] * 3.0
    values = policy.action_values(x)
    assert policy.backend == "numpy"
    np.testing.assert_allclose(values, 2.0 * agent.network(x["a"] - x["b"]), rtol=0, atol=1e-5)


def test_a_dict_of_one_array():
    inputs = {"position": keras.Input((3,), name="position")}
    agent = keras_dqn.DQN(keras.Model(inputs, keras.layers.Dense(2)(inputs["position"])))
    policy = agent.policy()
    x = {"position": np.arange(6, dtype=np.float32).reshape(2, 3)}
    np.testing.assert_allclose(policy.action_values(x), agent.network(x), rtol=0, atol=1e-5)
    assert policy.backend == "litert"


def test_one_conversion_serves_all_numbers_of_environments(monkeypatch):
    conversions = []
    convert = litert_converter.LiteRTConverter.convert
    monkeypatch.setattr(
        litert_converter.LiteRTConverter,
        "convert",
        lambda self, *args: conversions.append(args[-1]) or convert(self, *args),
    )
    agent = keras_dqn.DQN(stack(L.Dense(8, "relu")))
    policy = agent.policy()
    for count in (1, 8, 10, 64):
        x = observations(agent.network, count)
        np.testing.assert_allclose(policy.action_values(x), agent.network(x), rtol=0, atol=1e-5)
    assert conversions == [None]


def test_a_policy_prints_nothing(tmp_path):
    code = (
        "import os, sys, keras, numpy as np, keras_dqn\n"
        "network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])\n"
        "policy = keras_dqn.DQN(network).policy()\n"
        "os.write(2, b'HERE\\n')\n"
        "policy(np.ones((1, 4), np.float32)), policy(np.ones((2, 4), np.float32))\n"
        "print(policy.backend)\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "litert\n", done.stderr
    assert done.stderr.endswith("HERE\n")


def fail_loudly():
    os.write(2, b"the same in other words\n")
    raise RecursionError


def test_lines_of_others_are_not_lost_with_the_native_log(capfd):
    lines = (
        b"I0000 00:00:1795519512.930805   13844 reader.cc:83] Reading SavedModel\n",
        b"2026-11-24 11:25:08.659: I tensorflow/core/util/port.cc:153] oneDNN\n",
        b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n",
        b"E0000 00:00:1795519512.491140   13844 cuda_platform.cc:52] failed\n",
        b"the environment says: INFO\n",
    )
    with native_log_silenced():
        for line in lines:
            os.write(2, line)
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err.encode() == lines[3] + lines[4]
    with pytest.raises(RecursionError), native_log_silenced():
        fail_loudly()
    assert capfd.readouterr().err == ""
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"


def test_operation_that_the_converter_does_not_know_is_compiled():
    class Bessel(keras.layers.Layer):
        def call(self, inputs):
            import tensorflow as tf

            return tf.math.special.bessel_i0(inputs)

        def compute_output_shape(self, input_shape):
            return input_shape

    agent = keras_dqn.DQN(stack(Bessel()))
    policy = agent.policy()
    x = np.ones((2, 6), np.float32)
    with pytest.warns(
        UserWarning, match="LiteRT cannot convert the network. Received: Conv"
    ) as said:
        values = policy.action_values(x)
    np.testing.assert_allclose(values, agent.predict(x, verbose=0), atol=1e-5)
    policy.action_values(x[:1])
    assert len(said) == 1
    assert policy.backend == "compiled"
    assert policy.backend_reason.startswith("LiteRT cannot convert it: Conv")


def test_float64_observations(make_agent):
    agent = make_agent()
    x = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(
        agent.policy().action_values(x), agent.predict(x, verbose=0), rtol=0, atol=1e-5
    )


def test_mixed_precision_is_compiled():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        agent = keras_dqn.DQN(stack(L.Dense(8)))
    finally:
        keras.config.set_dtype_policy("float32")
    policy = agent.policy()
    x = np.ones((2, 6), np.float32)
    assert policy.action_values(x).dtype == np.float32
    assert policy.backend == "compiled"


def test_the_reason_for_a_compiled_call_is_told(monkeypatch, make_agent):
    agent = make_agent()
    assert (agent.policy().backend, agent.policy().backend_reason) == ("litert", "")
    convolution = keras.Sequential([keras.Input((6, 1)), keras.layers.Conv1D(2, 6)])
    assert "convolutions" in keras_dqn.Policy(convolution).backend_reason
    monkeypatch.setattr(litert_program, "Interpreter", None)
    policy = agent.policy()
    assert policy.backend_reason == "LiteRT, the extra `fast`, is not installed"


def test_a_pickled_policy_acts_in_another_process_and_takes_weights(make_agent, tmp_path):
    agent = make_agent(double=True)
    policy = agent.policy()
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    policy(x)  # its program stays behind
    content = pickle.dumps(policy)
    (tmp_path / "policy.pickle").write_bytes(content)
    code = (
        "import pickle, sys, numpy as np, keras_dqn\n"
        "policy = pickle.load(open(sys.argv[1], 'rb'))\n"
        "x = np.load(sys.argv[2])\n"
        "np.save(sys.argv[3], policy.action_values(x))\n"
    )
    files = [str(tmp_path / name) for name in ("policy.pickle", "x.npy", "values.npy")]
    np.save(files[1], x)
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    np.testing.assert_array_equal(np.load(files[2]), policy.action_values(x))

    other = pickle.loads(content)
    new = [weight + 1.0 for weight in policy.get_weights()]
    other.set_weights(new)
    agent.network.set_weights(new)
    np.testing.assert_allclose(other.action_values(x), agent.predict(x, verbose=0), atol=1e-5)
    with pytest.raises(ValueError, match="`weights` must have the shapes"):
        other.set_weights(new[1:])


def test_a_pickled_policy_of_a_plain_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    x = np.ones((1, 3), np.float32)
    again = pickle.loads(pickle.dumps(keras_dqn.Policy(model)))
    np.testing.assert_allclose(again.action_values(x), model(x), atol=1e-6)


class ActorCritic(keras.Model):
    """Has layers with the names of a `DQN`'s parts, but is none."""

    def __init__(self):
        super().__init__()
        self.network = keras.layers.Dense(5)
        self.policy = keras.layers.Dense(2)

    def call(self, inputs):
        return self.policy(self.network(inputs))


def test_a_model_with_everyday_names_is_read_by_its_outputs():
    model = ActorCritic()
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    model(x)
    assert policy_of(model).action_values(x).shape == (4, 2)
    np.testing.assert_allclose(policy_of(model).action_values(x), model(x), atol=1e-5)
