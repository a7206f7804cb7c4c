"""Policies without Keras: their values are those of the network, in any process."""

import pathlib
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import shake
from gymnasium.spaces import Box, Discrete

import keras_dqn
from keras_dqn.acting import litert_program
from keras_dqn.acting.host_policy import HostPolicy
from keras_dqn.layers import DuelingHead, NoisyDense
from keras_dqn.networks import minatar_cnn, mlp, nature_cnn

L = keras.layers


def floats(*shape):
    return lambda count: np.random.default_rng(count).normal(size=(count, *shape)).astype("f")


def integers(high, *shape, dtype="int64"):
    return lambda count: np.random.default_rng(count).integers(
        high, size=(count, *shape), dtype=dtype
    )


def stack(*layers):
    return keras.Sequential([keras.Input((4,)), *layers])


def torso():
    return stack(L.Dense(6, "relu"))


def dense():
    return keras_dqn.DQN(stack(L.Dense(8, "relu"), L.Dense(8, "tanh"), L.Dense(3)))


def of_parts(inputs):
    image, vector = keras.tree.flatten(inputs)
    x = L.Concatenate()([L.Flatten()(L.Rescaling(1 / 255)(image)), vector])
    return keras_dqn.DQN(keras.Model(inputs, L.Dense(2)(x)))


def inputs_of_parts():
    return keras.Input((2, 2), dtype="uint8", name="image"), keras.Input((3,), name="vector")


def parts(count):
    return integers(256, 2, 2, dtype="uint8")(count), floats(3)(count)


def noisy():
    return keras_dqn.DQN(stack(NoisyDense(5, "relu", sigma0=2.0), NoisyDense(2, sigma0=2.0)))


IMAGES = Box(0, 255, (36, 36, 2), np.uint8)
CASES = {
    "dense": (dense, floats(4)),
    "float64": (dense, lambda count: floats(4)(count).astype(np.float64)),
    "dueling": (lambda: keras_dqn.DQN(stack(L.Dense(6, "relu"), DuelingHead(3))), floats(4)),
    "categorical": (
        lambda: keras_dqn.CategoricalDQN(
            mlp(Box(-1, 1, (4,)), (2, 7)), num_atoms=7, v_min=-2.0, v_max=5.0
        ),
        floats(4),
    ),
    "quantiles": (
        lambda: keras_dqn.QuantileDQN(mlp(Box(-1, 1, (4,)), (2, 7)), num_quantiles=7),
        floats(4),
    ),
    "implicit": (
        lambda: keras_dqn.ImplicitQuantileDQN(torso(), L.Dense(2), num_cosines=4),
        floats(4),
    ),
    "minatar": (
        lambda: keras_dqn.DQN(minatar_cnn(Box(0, 1, (10, 10, 4), bool), 6, hidden_units=8)),
        lambda count: integers(2, 10, 10, 4)(count).astype(bool),
    ),
    "nature": (
        lambda: keras_dqn.DQN(nature_cnn(IMAGES, 3, hidden_units=8)),
        integers(256, 36, 36, 2, dtype="uint8"),
    ),
    "dict": (
        lambda: of_parts({part.name: part for part in inputs_of_parts()}),
        lambda count: dict(zip(("image", "vector"), parts(count), strict=True)),
    ),
    "tuple": (lambda: of_parts(inputs_of_parts()), parts),
    "list": (lambda: of_parts(list(inputs_of_parts())), lambda count: list(parts(count))),
    "discrete": (lambda: keras_dqn.DQN(mlp(Discrete(5), 2, hidden_units=(4,))), integers(5)),
    "noisy": (noisy, floats(4)),
}
BY_CASE = pytest.mark.parametrize(("make", "observe"), CASES.values(), ids=CASES)


def network_values(agent, observation):
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, observation)
    return np.asarray(agent.q_values(agent.outputs_of(agent.network, tensors)))


def read_only(weights):
    weights = [weight.copy() for weight in weights]
    for weight in weights:
        weight.flags.writeable = False
    return weights


def again(policy):
    return pickle.loads(pickle.dumps(policy))


def check(policy, agent, observe):
    for count in (1, 5, 2):
        x = observe(count)
        values = policy.action_values(x)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, network_values(agent, x), rtol=1e-5, atol=1e-5)


@BY_CASE
def test_values_equal_those_of_the_network(make, observe):
    pytest.importorskip("ai_edge_litert")
    agent = make()
    policy = agent.policy().host_policy(observe(3))
    assert policy.backend == "litert"
    check(policy, agent, observe)
    shake(agent.network)
    before, policy = policy.action_values(observe(5)), again(policy)
    np.testing.assert_array_equal(policy.action_values(observe(5)), before)
    weights = read_only(agent.policy().get_weights())
    policy.set_weights(weights)
    for own, given in zip(policy.get_weights(), weights, strict=True):
        assert np.shares_memory(own, given)
    check(policy, agent, observe)
    assert np.abs(policy.action_values(observe(5)) - before).max() > 1e-3
    check(again(policy), agent, observe)


@pytest.mark.parametrize("name", ["dense", "float64", "noisy"])
def test_without_litert_numpy_computes_stacks_of_dense_layers(name, monkeypatch):
    monkeypatch.setattr(litert_program, "Interpreter", None)
    make, observe = CASES[name]
    agent = make()
    policy = again(agent.policy().host_policy(observe(3)))
    assert policy.backend == "numpy"
    check(policy, agent, observe)
    shake(agent.network)
    policy.set_weights(read_only(agent.policy().get_weights()))
    check(policy, agent, observe)
    check(again(policy), agent, observe)


def test_numpy_reads_the_parts_of_a_dict_by_their_names(monkeypatch):
    monkeypatch.setattr(litert_program, "Interpreter", None)
    inputs = {name: keras.Input((3,), name=name) for name in ("b", "a")}
    x = L.Subtract()([inputs["b"], inputs["a"]])
    agent = keras_dqn.DQN(keras.Model(inputs, L.Dense(2)(x)))
    first, second = floats(3)(4), floats(3)(2)
    policy = agent.policy().host_policy({"b": first, "a": first})
    x = {"b": second, "a": 3.0 * second}
    assert policy.backend == "numpy"
    values = policy.action_values(x)
    np.testing.assert_allclose(values, network_values(agent, x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(policy.action_values({"a": x["a"], "b": x["b"]}), values)


NOISY = {
    "dense": noisy,
    "quantiles": lambda: keras_dqn.QuantileDQN(
        stack(L.Dense(6), DuelingHead(2, 7, hidden_units=5, noisy=True)), num_quantiles=7
    ),
}


@pytest.mark.parametrize("make", NOISY.values(), ids=NOISY)
def test_noisy_values_are_those_of_a_policy_with_the_same_generator(make):
    pytest.importorskip("ai_edge_litert")
    agent = make()
    policy = agent.policy()
    host = again(policy.host_policy(floats(4)(3), noisy=True))
    for _ in range(2):
        rng, same = np.random.default_rng(7), np.random.default_rng(7)
        for count in (1, 5, 2):
            x = floats(4)(count)
            values = host.noisy_action_values(x, rng)
            expected = policy.noisy_action_values(x, same)
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
            assert np.abs(values - host.action_values(x)).max() > 0.01
        shake(agent.network)
        policy.refresh()
        host.set_weights(policy.get_weights())


def test_noise_must_be_asked_for():
    x = floats(4)(2)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"`noisy` of `Policy.host_policy` must be True"):
        noisy().policy().host_policy(x).noisy_action_values(x, rng)
    with pytest.raises(ValueError, match=r"needs a network with `keras_dqn.layers.NoisyDense`"):
        dense().policy().host_policy(x, noisy=True)
    with pytest.raises(TypeError, match="`noisy` must be True or False"):
        noisy().policy().host_policy(x, noisy=1)


def test_a_network_that_is_not_built_gets_its_shape_from_the_example():
    agent = keras_dqn.DQN(keras.Sequential([L.Dense(5, "relu"), L.Dense(2)]))
    check(agent.policy().host_policy(floats(4)(3)), agent, floats(4))


def test_a_policy_of_a_plain_model():
    model = stack(L.Dense(2))
    x = floats(4)(3)
    values = keras_dqn.Policy(model).host_policy(x).action_values(x)
    np.testing.assert_allclose(values, model(x), rtol=0, atol=1e-5)


def test_the_reason_why_a_network_needs_keras(monkeypatch, recwarn):
    x = floats(4)(2)
    half = keras_dqn.DQN(stack(L.Dense(3, dtype="float16")))
    with pytest.raises(NotImplementedError, match=r"a layer computes in float16.*; NumPy") as error:
        half.policy().host_policy(x)
    assert "\n" not in str(error.value)

    recurrent = keras_dqn.DQN(stack(L.Reshape((2, 2)), L.LSTM(3)))
    with pytest.raises(NotImplementedError, match="LiteRT cannot convert it for any `E`:") as error:
        recurrent.policy().host_policy(x)
    assert "\n" not in str(error.value)

    monkeypatch.setattr(litert_program, "Interpreter", None)
    gelu = keras_dqn.DQN(stack(L.Dense(3, "gelu")))
    with pytest.raises(
        NotImplementedError,
        match=r"`fast`, is not installed; NumPy has no program for",
    ):
        gelu.policy().host_policy(x)
    with pytest.raises(NotImplementedError, match="NumPy has no program for"):
        noisy().policy().host_policy(x, noisy=True)
    assert not recwarn.list


@pytest.mark.parametrize("installed", [True, False], ids=["litert", "numpy"])
def test_observations_and_weights_that_do_not_fit_are_refused(installed, monkeypatch):
    if not installed:
        monkeypatch.setattr(litert_program, "Interpreter", None)
    policy = dense().policy().host_policy(floats(4)(2))
    expected = r"must hold the arrays \[\"float32 \('E', 4\)\"\]. Received: "
    for wrong in (np.ones(4, "f"), np.ones((2, 5), "f"), np.ones((2, 4), complex), {}):
        with pytest.raises(ValueError, match=expected):
            policy.action_values(wrong)
    x = np.arange(8, dtype=np.uint8).reshape(2, 4)
    np.testing.assert_array_equal(
        policy.action_values(x), policy.action_values(x.astype(np.float32))
    )
    with pytest.raises(ValueError, match="`weights` must have the shapes"):
        policy.set_weights(policy.get_weights()[1:])


def test_images_of_another_dtype_are_not_cut_off():
    make, observe = CASES["nature"]
    policy = make().policy().host_policy(observe(2))
    with pytest.raises(ValueError, match=r"uint8 \('E', 36, 36, 2\).*Received: \['float32 \(2"):
        policy.action_values(observe(2) / 255)


def test_a_process_without_litert_says_what_it_needs(monkeypatch):
    x = floats(4)(2)
    content = pickle.dumps(dense().policy().host_policy(x))
    monkeypatch.setattr(litert_program, "Interpreter", None)
    with pytest.raises(ImportError, match="needs LiteRT: python -m pip install ai-edge-litert"):
        pickle.loads(content).action_values(x)


WORKER = """
import pickle, sys, types
import numpy as np

package = types.ModuleType("keras_dqn")
package.__path__ = [sys.argv[1]]
sys.modules["keras_dqn"] = package
with open(sys.argv[2], "rb") as file:
    policies, x = pickle.load(file)
values = [policy.action_values(x) for policy in policies]
values.append(policies[0].noisy_action_values(x, np.random.default_rng(3)))
assert not {"keras", "tensorflow"} & set(sys.modules), sorted(sys.modules)
np.save(sys.argv[3], values)
"""


def test_a_process_without_keras_acts(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    agent = noisy()
    x = floats(4)(5)
    policies = [agent.policy().host_policy(x[:1], noisy=True)]
    with monkeypatch.context() as context:
        context.setattr(litert_program, "Interpreter", None)
        policies.append(agent.policy().host_policy(x[:1]))
    assert [policy.backend for policy in policies] == ["litert", "numpy"]
    assert all(isinstance(policy, HostPolicy) for policy in policies)
    (tmp_path / "policies").write_bytes(pickle.dumps((policies, x)))
    package = str(pathlib.Path(keras_dqn.__file__).parent)
    files = [str(tmp_path / "policies"), str(tmp_path / "values.npy")]
    command = [sys.executable, "-c", WORKER, package, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    litert, numpy, with_noise = np.load(files[1])
    expected = network_values(agent, x)
    np.testing.assert_allclose(litert, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(numpy, expected, rtol=0, atol=1e-5)
    noisy_values = agent.policy().noisy_action_values(x, np.random.default_rng(3))
    np.testing.assert_allclose(with_noise, noisy_values, rtol=1e-4, atol=1e-5)
    assert np.abs(with_noise - litert).max() > 0.01
