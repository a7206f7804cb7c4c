import gymnasium as gym
import keras
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

import keras_dqn
from keras_dqn.networks import mlp

# Keras 3.10, of any functional model that was loaded.
pytestmark = pytest.mark.filterwarnings("ignore:The structure of `inputs`:UserWarning")


def encoded(space, observations):
    """What the first Dense layer receives."""
    network = mlp(space, None, hidden_units=())
    return np.asarray(network(np.asarray(observations, space.dtype)))


@pytest.mark.parametrize(
    ("num_outputs", "shape"), [(3, (None, 3)), ((3, 5), (None, 3, 5)), (None, (None, 7))]
)
def test_outputs(num_outputs, shape):
    network = mlp(Box(-1, 1, (4,)), num_outputs, hidden_units=(6, 7))
    assert network.output_shape == shape


def test_the_last_layer_is_linear():
    network = mlp(Box(-1, 1, (4,)), (3, 5))
    assert network.layers[-2].activation is keras.activations.linear


def test_floats_are_flattened_and_not_scaled():
    observations = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    assert encoded(Box(0, 11, (2, 3)), observations).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
    ]
    assert encoded(Box(0, 11, (), np.float64), [2.5, 3]).tolist() == [[2.5], [3]]


def test_bounded_integers_are_scaled():
    np.testing.assert_allclose(
        encoded(Box(0, 255, (2,), np.uint8), [[0, 255], [51, 102]]), [[0, 1], [0.2, 0.4]]
    )
    np.testing.assert_allclose(encoded(Box(-5, 15, (2,), np.int64), [[-5, 10]]), [[0, 0.75]])
    unbounded = Box(-np.inf, np.inf, (2,), np.int32)
    np.testing.assert_allclose(encoded(unbounded, [[-700, 7]]), [[-700, 7]])


def test_discrete_observations_become_one_hot():
    assert encoded(Discrete(3), [0, 2]).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert encoded(Discrete(3, start=5), [5, 6]).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert encoded(Discrete(1), [0, 0]).tolist() == [[1], [1]]


def test_each_part_of_multi_discrete_observations_becomes_one_hot():
    rows = [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]
    assert encoded(MultiDiscrete([2, 3]), [[0, 2], [1, 0]]).tolist() == rows
    assert encoded(MultiDiscrete([2, 3], start=[7, -1]), [[7, 1], [8, -1]]).tolist() == rows
    assert encoded(MultiDiscrete([[2], [3]]), [[[0], [2]], [[1], [0]]]).tolist() == rows
    assert encoded(MultiDiscrete([4]), [[3]]).tolist() == [[0, 0, 0, 1]]


def test_binary_observations_are_flattened():
    assert encoded(MultiBinary(2), [[0, 1]]).tolist() == [[0, 1]]
    assert encoded(MultiBinary((2, 2)), [[[0, 1], [1, 1]]]).tolist() == [[0, 1, 1, 1]]


def test_one_hot_is_exact_in_half_precision():
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        output = encoded(Discrete(4_099), [4_097])
    finally:
        keras.config.set_dtype_policy(policy)
    assert np.flatnonzero(output).tolist() == [4_097]


def test_number_of_parameters():
    # 4 x 6 + 6, 6 x 7 + 7, 7 x 3 + 3; with 2 x 6 and 2 x 7 for scale and offset.
    assert mlp(Box(-1, 1, (4,)), 3, hidden_units=(6, 7)).count_params() == 103
    normalized = mlp(Box(-1, 1, (4,)), 3, hidden_units=(6, 7), layer_normalization=True)
    assert normalized.count_params() == 129


def test_a_normalized_layer_by_hand():
    network = mlp(Box(-9, 9, (1,)), None, hidden_units=[3], layer_normalization=True)
    _, dense, _, _ = network.layers
    dense.set_weights([np.array([[1.0, 2.0, 6.0]]), np.zeros(3)])
    # (1, 2, 6) has the mean 3 and the variance (4 + 1 + 9) / 3; the rest is ReLU.
    expected = np.array([0.0, 0.0, 3.0]) / np.sqrt(14 / 3 + 1e-3)
    np.testing.assert_allclose(network(np.array([[1.0]]))[0], expected, rtol=1e-5)


def test_another_activation():
    network = mlp(Box(-1, 1, (1,)), None, hidden_units=[2], activation="tanh")
    network.layers[1].set_weights([np.array([[1.0, -2.0]]), np.zeros(2)])
    np.testing.assert_allclose(network(np.array([[1.0]]))[0], np.tanh([1.0, -2.0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("space", "kwargs", "error", "message"),
    [
        (Dict({"a": Box(0, 1, (2,))}), {}, TypeError, "`observation_space` must be a Box, Disc"),
        (4, {}, TypeError, "`observation_space` must be a Box, Discrete"),
        (Discrete(3), {"num_outputs": 0}, ValueError, "`num_outputs` must be at least 1"),
        (Discrete(3), {"num_outputs": "3"}, TypeError, "`num_outputs` must be an integer"),
        (Discrete(3), {"num_outputs": (2,)}, ValueError, "`num_outputs` must be an integer, a t"),
        (Discrete(3), {"num_outputs": (2, 0)}, ValueError, "`num_outputs` must be at least 1"),
        (Discrete(3), {"hidden_units": 3}, TypeError, "`hidden_units` must be a tuple"),
        (Discrete(3), {"hidden_units": (3, 0)}, ValueError, "`hidden_units` must be at least 1"),
        (Discrete(3), {"layer_normalization": 1}, TypeError, "`layer_normalization` must be True"),
        (
            Discrete(3),
            {"hidden_units": (), "layer_normalization": 1},
            TypeError,
            "`layer_normalization` must be True",
        ),
    ],
    ids=str,
)
def test_refusals(space, kwargs, error, message):
    with pytest.raises(error, match=message):
        mlp(space, **{"num_outputs": 2, **kwargs})


@pytest.mark.parametrize(
    "space", [Box(-1, 1, (2, 3)), Discrete(4, start=2), MultiDiscrete([2, 3])], ids=str
)
def test_an_agent_with_it_trains_saves_and_loads(space, tmp_path):
    agent = keras_dqn.DQN(mlp(space, 2, hidden_units=(4,), layer_normalization=True))
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=True)
    replay = keras_dqn.ReplayBuffer(20, space, Discrete(2), seed=0)
    space.seed(0)
    for _ in range(10):
        replay.add(space.sample(), 1, 1.0, False, False, space.sample())
    agent.train_on_batch(*replay.sample(3))
    observation, _, _ = replay.sample(5)
    values = agent.network(observation)
    assert np.abs(values - agent.target_network(observation)).max() > 0
    np.testing.assert_allclose(agent.policy().action_values(observation), values, atol=1e-5)
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    np.testing.assert_array_equal(loaded.network(observation), values)


def test_an_environment_fits():
    env = gym.make("CartPole-v1")
    network = mlp(env.observation_space, env.action_space.n)
    observation, _ = env.reset(seed=0)
    assert network(observation[None]).shape == (1, 2)
