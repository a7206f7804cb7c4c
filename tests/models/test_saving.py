"""Save, load in a fresh process, go on: nothing may differ from never having stopped."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn import SoftTargetUpdate


@keras.saving.register_keras_serializable(package="tests")
class Net(keras.Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, "tanh")
        self.values = keras.layers.Dense(2)

    def call(self, inputs):
        return self.values(self.hidden(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def sequential():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )


def functional():
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.Dense(4, "tanh")(x)))


NETWORKS = {"sequential": sequential, "functional": functional, "subclassed": lambda: Net(4)}

FRESH_PROCESS = """
import sys
import numpy as np
import keras, keras_dqn
for name in sys.argv[1:]:
    agent = keras.models.load_model(f"{name}.keras", safe_mode=True)
    x = np.load("x.npy")
    np.savez(
        f"{name}.npz",
        outputs=agent.predict(x, verbose=0),
        target=agent.target_network.predict(x, verbose=0),
        optimizer=np.concatenate([np.ravel(v.numpy()) for v in agent.optimizer.variables]),
        config=np.array([type(agent).__name__, str(agent.double), str(agent.steps_per_execution)]),
    )
"""


def test_fresh_process_needs_no_custom_objects(make_batches, as_dataset, tmp_path):
    agents = {}
    for kind in ("sequential", "functional"):
        agents[kind] = agent = keras_dqn.DQN(NETWORKS[kind](), double=True)
        agent.compile(keras.optimizers.Adam(0.01), steps_per_execution=2)
        agent.fit(as_dataset(make_batches(4)), verbose=0, callbacks=[SoftTargetUpdate(0.1)])
        agent.save(tmp_path / f"{kind}.keras")
    x = make_batches()[0][0]
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-c", FRESH_PROCESS, *agents]
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path)
    for kind, agent in agents.items():
        loaded = np.load(tmp_path / f"{kind}.npz")
        np.testing.assert_array_equal(loaded["outputs"], agent.predict(x, verbose=0))
        np.testing.assert_array_equal(loaded["target"], agent.target_network.predict(x, verbose=0))
        assert np.any(loaded["target"] != loaded["outputs"])
        optimizer = np.concatenate([np.ravel(v.numpy()) for v in agent.optimizer.variables])
        np.testing.assert_array_equal(loaded["optimizer"], optimizer)
        assert list(loaded["config"]) == ["DQN", "True", "2"]


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_going_on_equals_never_having_stopped(make, make_batches, as_dataset, tmp_path):
    batches = make_batches(12)
    agent = keras_dqn.DQN(make(), double=True)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.8)
    agent.compile(keras.optimizers.Adam(schedule), metrics=["mae"], steps_per_execution=2)
    agent.fit(as_dataset(batches[:6]), verbose=0, callbacks=[SoftTargetUpdate(0.5, 4)])
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras", safe_mode=True)
    assert json.dumps(loaded.get_config()) == json.dumps(agent.get_config())
    assert json.dumps(loaded.get_compile_config()) == json.dumps(agent.get_compile_config())
    histories = [
        each.fit(as_dataset(batches[6:]), verbose=0, callbacks=[SoftTargetUpdate(0.5, 4)]).history
        for each in (agent, loaded)
    ]
    assert histories[0] == histories[1]
    for a, b in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_alone(make_agent, make_network, make_batches, tmp_path):
    agent = make_agent()
    agent.train_on_batch(*make_batches()[0])
    agent.save_weights(tmp_path / "agent.weights.h5")
    other = make_agent(make_network())
    other.load_weights(tmp_path / "agent.weights.h5")
    for a, b in zip(agent.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_auto_jit_compile_is_resolved_again_where_it_is_loaded(make_agent):
    assert make_agent(jit_compile="auto").get_compile_config()["jit_compile"] == "auto"
    assert make_agent(jit_compile=False).get_compile_config()["jit_compile"] is False


def test_subclass_of_the_agent(make_network, make_batches, tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class Optimistic(keras_dqn.DQN):
        def __init__(self, network, bonus=0.0, **kwargs):
            super().__init__(network, **kwargs)
            self.bonus = bonus

        def compute_target(self, observation, transition):
            return super().compute_target(observation, transition) + self.bonus

        def get_config(self):
            return {**super().get_config(), "bonus": self.bonus}

    agent = Optimistic(make_network(), bonus=3.0)
    agent.compile()
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    batch = make_batches()[0]
    np.testing.assert_array_equal(loaded.td_errors(batch), agent.td_errors(batch))
