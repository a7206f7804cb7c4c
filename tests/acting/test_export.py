import gc
import importlib.util
import os
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import shake

import keras_dqn

FORMATS = {"tf_saved_model": "policy", "onnx": "policy.onnx", "litert": "policy.tflite"}
pytestmark = [
    # Keras' and the converters' own, while they trace and write.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    # Older versions of Keras, of any model with a dict of inputs.
    pytest.mark.filterwarnings("ignore:[\\s\\S]*The structure of `inputs`:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning"),
]


def run_saved_model(path, observation):
    policy = tf.saved_model.load(str(path))
    return policy.serve(keras.tree.map_structure(tf.constant, observation)).numpy()


def run_onnx(path, observation):
    onnxruntime = pytest.importorskip("onnxruntime", reason="python -m pip install '.[onnx]'")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    leaves = keras.tree.flatten(observation)
    return session.run(None, dict(zip(names, leaves, strict=True)))[0]


def run_litert(path, observation):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    program = interpreter.Interpreter(model_path=str(path))
    runner = program.get_signature_runner()
    names = sorted(runner.get_input_details())
    leaves = keras.tree.flatten(observation)
    (action,) = runner(**dict(zip(names, leaves, strict=True))).values()
    return action


RUN = {"tf_saved_model": run_saved_model, "onnx": run_onnx, "litert": run_litert}


def needs(format):
    if format == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        pytest.skip("python -m pip install '.[onnx]'")
    if format == "litert" and "litert" not in keras.Model.export.__doc__:
        pytest.skip("this Keras does not write LiteRT")


def preprocessing_network():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )


def dict_network():
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((), dtype="int32", name="b")}
    embedded = keras.layers.Embedding(5, 4)(inputs["b"])
    merged = keras.layers.Concatenate()([inputs["a"], embedded])
    return keras.Model(inputs, keras.layers.Dense(3)(merged))


def observations_of(network, count, seed=0):
    rng = np.random.default_rng(seed)
    kinds = {
        "uint8": lambda shape: rng.integers(256, size=shape).astype(np.uint8),
        "int32": lambda shape: rng.integers(5, size=shape).astype(np.int32),
        "float32": lambda shape: rng.normal(size=shape).astype(np.float32),
    }
    inputs = network.inputs[0] if isinstance(network, keras.Sequential) else network.input
    return keras.tree.map_structure(
        lambda leaf: kinds[leaf.dtype]((count, *leaf.shape[1:])), inputs
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("make", [preprocessing_network, dict_network])
def test_an_exported_policy_acts_like_the_agent(tmp_path, make, format):
    needs(format)
    network = make()
    agent = keras_dqn.DQN(network)
    shake(network)
    path = tmp_path / FORMATS[format]
    agent.export_policy(path, format=format, verbose=False)
    observation = observations_of(network, 200)
    expected = agent.act(observation)
    assert len(set(expected.tolist())) > 1
    actions = RUN[format](path, observation)
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("make", [preprocessing_network, dict_network])
def test_an_action_mask_is_an_input(tmp_path, make, format):
    needs(format)
    network = make()
    agent = keras_dqn.DQN(network, action_mask="allowed")
    shake(network)
    observation = observations_of(network, 200)
    if not isinstance(observation, dict):
        observation = {"observation": observation}
    unmasked = agent.act({**observation, "allowed": np.ones((200, 3), np.int8)})
    mask = np.random.default_rng(1).integers(2, size=(200, 3)).astype(np.int8)
    mask[mask.sum(axis=1) == 0] = 1
    observation["allowed"] = mask
    path = tmp_path / FORMATS[format]
    agent.export_policy(path, format=format, verbose=False)
    actions = RUN[format](path, observation)
    np.testing.assert_array_equal(actions, agent.act(observation))
    assert mask[np.arange(200), actions].all()
    assert (actions != unmasked).any()


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_subclass_makes_of_outputs_is_exported(tmp_path, make_network, format):
    needs(format)

    class Negated(keras_dqn.DQN):
        def q_values(self, outputs):
            return -super().q_values(outputs)

    agent = Negated(make_network(actions=3))
    path = tmp_path / FORMATS[format]
    agent.export_policy(path, format=format, verbose=False)
    observation = observations_of(agent.network, 1, seed=4)
    actions = RUN[format](path, observation)
    np.testing.assert_array_equal(actions, agent.act(observation))
    assert actions[0] == np.argmin(agent.network.predict(observation, verbose=0))


def observed(network, name="observation"):
    """Functional networks with inputs of several kinds, and what they take."""
    x = keras.Input((3,), name=name)
    return keras.Model([x] if name == "list" else x, network(x))


class NestedDict(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        parts = [inputs["left"]["x/y"], inputs["right"]["x/y"]]
        return self.dense(keras.layers.Concatenate()(parts))

    def get_config(self):
        return {}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["policy", "list", "nested", "mixed_float16"])
def test_networks_that_the_agent_takes_are_exported(tmp_path, kind, format):
    needs(format)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 3)).astype(np.float32)
    if kind == "nested":
        network = NestedDict()
        x = {
            side: {"x/y": rng.normal(size=(30, 2)).astype(np.float32)} for side in ("left", "right")
        }
    elif kind == "mixed_float16":
        keras.config.set_dtype_policy("mixed_float16")
        try:
            last = keras.layers.Dense(30, dtype="float32")
            network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu"), last])
            agent = keras_dqn.DQN(network)
        finally:
            keras.config.set_dtype_policy("float32")
        # In float16 these values were all the same.
        last.kernel.assign(last.kernel * 1e-3)
        last.bias.assign(last.bias + 100.0)
    else:
        network = observed(keras.layers.Dense(3), name=kind)
    if kind != "mixed_float16":
        agent = keras_dqn.DQN(network)
    if format != "tf_saved_model" and kind == "mixed_float16":
        pytest.skip("neither Keras' ONNX export nor LiteRT knows float16 layers")
    expected = agent.act(x)
    assert len(set(expected.tolist())) > 1
    path = tmp_path / FORMATS[format]
    agent.export_policy(path, format=format, verbose=False)
    np.testing.assert_array_equal(RUN[format](path, x), expected)


def test_an_export_leaves_nothing_on_the_network(tmp_path, make_network):
    network = make_network()
    agent = keras_dqn.DQN(network)
    agent.export_policy(tmp_path / "policy", verbose=False)
    gone = weakref.ref(agent)
    del agent
    gc.collect()
    assert gone() is None


def test_a_saved_model_holds_the_network_alone_and_runs_without_keras(tmp_path, make_network):
    agent = keras_dqn.DQN(make_network())
    agent.compile("adam")
    agent.export_policy(tmp_path / "policy", verbose=False)
    observation = observations_of(agent.network, 5)
    np.save(tmp_path / "observation.npy", observation)
    code = (
        "import sys, numpy as np, tensorflow as tf;"
        "policy = tf.saved_model.load('policy');"
        "assert 'keras_dqn' not in sys.modules;"
        "print(len(policy.variables), policy.serve(np.load('observation.npy')).numpy().tolist())"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.stdout.strip() == f"4 {agent.act(observation).tolist()}", done.stderr


def test_a_network_without_input_is_exported_once_it_is_built(tmp_path):
    agent = keras_dqn.DQN(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(ValueError, match="must be built before it is exported"):
        agent.export_policy(tmp_path / "policy")
    observation = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    expected = agent.act(observation)
    agent.export_policy(tmp_path / "policy", verbose=False)
    np.testing.assert_array_equal(run_saved_model(tmp_path / "policy", observation), expected)


def test_training_goes_on_after_an_export(tmp_path, make_agent, make_batches, as_dataset):
    agent = make_agent()
    agent.export_policy(tmp_path / "policy", verbose=False)
    before = agent.network.get_weights()
    agent.fit(as_dataset(make_batches(2)), verbose=0, callbacks=[keras_dqn.SoftTargetUpdate(0.1)])
    assert (before[0] != agent.network.get_weights()[0]).any()


def test_an_unknown_format_is_refused(tmp_path, make_agent):
    with pytest.raises(ValueError, match="format"):
        make_agent().export_policy(tmp_path / "policy", format="stone")
