import subprocess
import sys

CODE = """
import keras
keras.config.set_floatx("float64")
import numpy as np, keras_dqn, gymnasium as gym
network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
agent = keras_dqn.DQN(network, double=True)
agent.compile("sgd", steps_per_execution=2)
replay = keras_dqn.PrioritizedReplayBuffer(
    50, gym.spaces.Box(-9, 9, (3,)), gym.spaces.Discrete(2), seed=0
)
for step in range(20):
    replay.add(np.full(3, step % 5), step % 2, 1.0, step % 5 == 4, False, np.ones(3))
before = network.get_weights()[0]
assert before.dtype == np.float64
agent.fit(
    replay.dataset(4), steps_per_epoch=4, verbose=0, callbacks=[keras_dqn.SoftTargetUpdate()]
)
assert np.any(network.get_weights()[0] != before)
x = np.ones((2, 3))
np.testing.assert_allclose(agent.policy().action_values(x), agent.predict(x, verbose=0), atol=1e-5)

torso = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu")])
network = keras.Sequential([torso, keras_dqn.layers.DuelingHead(2, 51, noisy=True)])
for agent in (
    keras_dqn.CategoricalDQN(network, v_min=0.0, v_max=9.0),
    keras_dqn.HLGaussDQN(network, v_min=0.0, v_max=9.0),
    keras_dqn.QuantileDQN(network),
    keras_dqn.ImplicitQuantileDQN(torso, keras_dqn.layers.DuelingHead(2, noisy=True)),
):
    agent.compile("sgd", jit_compile=False)
    assert np.isfinite(agent.train_on_batch(*replay.sample(4))).all()
"""


def test_an_agent_trains_and_acts_where_floats_are_of_64_bits():
    """In a process of its own: the setting holds for all of Keras."""
    subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, timeout=120)
