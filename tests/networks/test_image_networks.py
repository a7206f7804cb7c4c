"""`nature_cnn`, `impala_cnn` and `minatar_cnn`: what they share, and what the papers say."""

import keras
import numpy as np
import pytest
from gymnasium import Env
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.wrappers import FrameStackObservation

import keras_dqn
from keras_dqn.networks import impala_cnn, minatar_cnn, nature_cnn
from keras_dqn.networks.adaptive_pooling import adaptive_max_pooling

# Keras 3.10, of any functional model that was loaded.
pytestmark = pytest.mark.filterwarnings("ignore:The structure of `inputs`:UserWarning")


def small_nature(space, num_outputs):
    return nature_cnn(space, num_outputs, hidden_units=8)


def small_impala(space, num_outputs):
    options = {"spectral_normalization": True, "max_pooling": 2}
    return impala_cnn(space, num_outputs, hidden_units=8, **options)


def small_minatar(space, num_outputs):
    return minatar_cnn(space, num_outputs, hidden_units=8)


NETWORKS = {  # and height and width of small images
    "nature": (small_nature, 36, 40),
    "impala": (small_impala, 9, 12),
    "minatar": (small_minatar, 5, 6),
}
EACH = {"argvalues": NETWORKS.values(), "ids": NETWORKS}


def images(*shape, dtype=np.uint8, high=255):
    return Box(0, high, shape, dtype)


def drawn(space, count=3, seed=0):
    space.seed(seed)
    return np.stack([space.sample() for _ in range(count)])


@pytest.mark.parametrize(("make", "height", "width"), **EACH)
@pytest.mark.parametrize(
    ("num_outputs", "shape"), [(3, (None, 3)), ((3, 5), (None, 3, 5)), (None, (None, 8))]
)
def test_outputs(make, height, width, num_outputs, shape):
    network = make(images(height, width, 2), num_outputs)
    assert network.output_shape == shape
    if num_outputs:
        dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
        assert dense[-1].activation is keras.activations.linear


@pytest.mark.parametrize(("make", "height", "width"), **EACH)
def test_layouts_give_the_same(make, height, width):
    """The channels of a pixel are those of its oldest frame, then those of the next."""
    space = images(height, width, 4)
    network = make(space, 3)
    observations = drawn(space)
    expected = network(observations)
    stacked = observations.reshape(3, height, width, 2, 2)  # frames of two channels
    for other in (
        observations.transpose(0, 3, 1, 2),
        observations.transpose(0, 3, 1, 2)[..., None],  # grey frames, with an axis for it
        stacked.transpose(0, 3, 1, 2, 4),
        stacked.transpose(0, 3, 4, 1, 2),
    ):
        again = make(images(*other.shape[1:]), 3)
        again.set_weights(network.get_weights())
        np.testing.assert_allclose(again(other), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((6, 6, 2), 2),
        ((2, 6, 6), 2),
        ((6, 6, 6), 6),
        ((6, 6, 9), 9),
        ((6, 7, 9), 6),
        ((4, 6, 6, 6), 24),
        ((9, 6, 6, 2), 18),
        ((9, 2, 6, 6), 18),
        ((9, 1, 6, 6), 9),
    ],
    ids=str,
)
def test_which_axis_is_the_channels(shape, channels):
    network = minatar_cnn(images(*shape), 2)
    convolutions = [x for x in network.layers if isinstance(x, keras.layers.Conv2D)]
    assert convolutions[0].kernel.shape == (3, 3, channels, 16)


@pytest.mark.parametrize(
    ("space", "values", "expected"),
    [
        (images(5, 6, 1), [0, 51, 255], [0, 0.2, 1]),
        (images(5, 6, 1, dtype=bool, high=1), [False, True], [0, 1]),
        (Box(-2, 6, (5, 6, 1)), [-2, 0, 6], [0, 0.25, 1]),
        (Box(-8, 8, (5, 6, 1), np.int16), [-8, 4], [0, 0.75]),
        (Box(-np.inf, 6, (5, 6, 1)), [-9, 6], [-9, 6]),
        (Box(0, np.finfo(np.float32).max, (5, 6, 1)), [0, 7], [0, 7]),
        (Box(3, 3, (5, 6, 1)), [3], [3]),
        (Box(0, np.array([2, 4], np.float32) * np.ones((5, 6, 2), np.float32)), [1, 4], [0.25, 1]),
    ],
    ids=str,
)
def test_finite_bounds_become_zero_and_one(space, values, expected):
    network = minatar_cnn(space, 2)
    before = keras.Model(network.input, network.layers[1].output)
    for value, wanted in zip(values, expected, strict=True):
        output = before(np.full((1, *space.shape), value, space.dtype))
        np.testing.assert_allclose(output, np.full(output.shape, wanted), atol=1e-6)


def test_nature_has_the_parameters_of_the_paper():
    # Of 84 x 84 x 4 and 6 actions: 8 x 8 x 4 x 32 + 32 = 8,224 -> 20 x 20;
    # 4 x 4 x 32 x 64 + 64 = 32,832 -> 9 x 9; 3 x 3 x 64 x 64 + 64 = 36,928 -> 7 x 7 x 64 = 3,136;
    # 3,136 x 512 + 512 = 1,606,144; 512 x 6 + 6 = 3,078.
    network = nature_cnn(images(4, 84, 84), 6)
    assert network.count_params() == 8_224 + 32_832 + 36_928 + 1_606_144 + 3_078
    assert [layer.activation.__name__ for layer in network.layers if layer.weights] == [
        *["relu"] * 4,
        "linear",
    ]


def test_minatar_has_the_parameters_of_the_paper():
    # Of 10 x 10 x 4 and 6 actions: 3 x 3 x 4 x 16 + 16 = 592 -> 8 x 8 x 16 = 1,024;
    # 1,024 x 128 + 128 = 131,200; 128 x 6 + 6 = 774.
    assert minatar_cnn(images(10, 10, 4, dtype=bool, high=1), 6).count_params() == 132_566


def impala_parameters(width):
    """Weights of the convolutions for four input channels, with 9 = 3 x 3 weights per pair."""
    total, before = 0, 4
    for channels in (16 * width, 32 * width, 32 * width):
        total += 9 * before * channels + channels + 4 * (9 * channels * channels + channels)
        before = channels
    return total


@pytest.mark.parametrize(("make", "size"), [(nature_cnn, 36), (minatar_cnn, 5)])
def test_the_normalized_dense_layer(make, size):
    space = images(size, size, 2)
    network = make(space, None, hidden_units=8, layer_normalization=True)
    (dense,) = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    x = np.array(keras.Model(network.inputs, dense.output)(drawn(space)))
    mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
    expected = np.maximum((x - mean) / np.sqrt(variance + 1e-3), 0.0)
    np.testing.assert_allclose(network(drawn(space)), expected, atol=1e-4)
    assert 0 < np.count_nonzero(expected) < expected.size
    without = make(space, None, hidden_units=8)
    assert network.count_params() == without.count_params() + 2 * 8  # scale and offset


def test_impala_has_the_parameters_of_the_paper():
    # Of 84 x 84 x 4 and 6 actions: 592 + 4 x 2,320, then 4,640 + 4 x 9,248, then 5 x 9,248 are
    # 97,744; 84 -> 42 -> 21 -> 11 and 11 x 11 x 32 = 3,872; 3,872 x 256 + 256; 256 x 6 + 6.
    assert impala_parameters(1) == 97_744
    network = impala_cnn(images(4, 84, 84), 6)
    assert network.count_params() == 97_744 + 991_488 + 1_542
    # There are 15 convolutions, and no layer is left out.
    kernels = [weight for weight in network.weights if len(weight.shape) == 4]
    assert len(kernels) == 15


def test_impala_of_beyond_the_rainbow():
    network = impala_cnn(
        images(4, 84, 84),
        None,
        width=2,
        hidden_units=None,
        spectral_normalization=True,
        max_pooling=6,
    )
    assert network.output_shape == (None, 6 * 6 * 64)
    assert sum(np.prod(w.shape) for w in network.trainable_weights) == impala_parameters(2)
    wrapped = [x for x in network.layers if isinstance(x, keras.layers.SpectralNormalization)]
    assert len(wrapped) == 12  # three sections of two blocks of two
    again = impala_cnn(images(4, 36, 50), None, width=2, hidden_units=None, max_pooling=6)
    assert again.output_shape == network.output_shape


def test_spectral_normalization_works_in_mixed_precision():
    """Each call in training is one power iteration, with warnings as errors."""
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        network = impala_cnn(images(4, 4, 1), 2, spectral_normalization=True)
    finally:
        keras.config.set_dtype_policy(policy)
    for _ in range(12):
        network(np.zeros((1, 4, 4, 1), np.uint8), training=True)
    for layer in network.layers:
        if isinstance(layer, keras.layers.SpectralNormalization):
            kernel = layer.layer.kernel.numpy()
            norm = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)
            assert norm == pytest.approx(1.0, abs=0.15)


def test_impala_without_a_hidden_layer():
    assert impala_cnn(images(16, 24, 1), None, hidden_units=None).output_shape == (None, 2 * 3 * 32)
    # 97,312 = 97,744 - 3 of the 4 channels' 9 x 16 weights; 192 x 5 + 5 for the last layer.
    assert impala_cnn(images(16, 24, 1), 5, hidden_units=None).count_params() == 97_312 + 965


def test_a_residual_block_adds_to_its_input():
    network = impala_cnn(images(4, 4, 1, high=1), None, hidden_units=None)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            kernel[:] = 0.0
            first = layer.input.shape[-1] != layer.output.shape[-1]  # of the first two sections
            kernel[1, 1, 0, 0] = 1.0 if first else 0.5
            layer.set_weights([kernel, bias])
    # One channel alone: two blocks of x + 0.5 x 0.5 x in each section, 0.5 in the third one.
    output = network(np.ones((1, 4, 4, 1), np.uint8))[0]
    np.testing.assert_allclose(output[0], 1.25**6 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(output[1:], np.zeros(31), atol=1e-6)


def adaptive_reference(x, size):
    """One loop per output, of the formula."""
    _, height, width, _ = x.shape
    result = np.empty((len(x), size, size, x.shape[-1]), x.dtype)
    for i in range(size):
        for j in range(size):
            rows = slice(i * height // size, int(np.ceil((i + 1) * height / size)))
            columns = slice(j * width // size, int(np.ceil((j + 1) * width / size)))
            result[:, i, j] = x[:, rows, columns].max(axis=(1, 2))
    return result


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(11, 11, 6), (12, 6, 6), (7, 5, 3), (13, 9, 4), (2, 3, 6), (8, 10, 5), (5, 5, 1), (1, 1, 2)],
    ids=str,
)
def test_adaptive_pooling_is_its_formula(height, width, size):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    output = x
    for layer in adaptive_max_pooling(height, width, size):
        output = layer(output)
    np.testing.assert_array_equal(output, adaptive_reference(x, size))


def test_atari_frames_need_no_repeated_entries():
    layers = adaptive_max_pooling(11, 11, 6)
    assert [type(layer) for layer in layers] == [keras.layers.MaxPooling2D] * 2


@pytest.mark.parametrize("make", [nature_cnn, impala_cnn, minatar_cnn])
@pytest.mark.parametrize(
    ("space", "num_outputs", "error", "message"),
    [
        (Discrete(3), 2, TypeError, "`observation_space` must be a gymnasium.spaces.Box of images"),
        (Dict({"a": Discrete(2)}), 2, TypeError, "`observation_space` must be a gymnasium.spaces"),
        (images(84, 84), 2, ValueError, r"`observation_space` must have the shape \(H, W, C\)"),
        (images(2, 2, 2, 84, 84), 2, ValueError, "`observation_space` must have the shape"),
        (images(84, 84, 1), 0, ValueError, "`num_outputs` must be at least 1"),
        (images(84, 84, 1), 2.0, TypeError, "`num_outputs` must be an integer"),
        (images(84, 84, 1), (2, 3, 4, 5), ValueError, "`num_outputs` must be an integer, a tuple"),
    ],
    ids=str,
)
def test_refusals(make, space, num_outputs, error, message):
    with pytest.raises(error, match=message):
        make(space, num_outputs)


@pytest.mark.parametrize("make", [nature_cnn, minatar_cnn])
def test_layer_normalization_is_a_bool(make):
    with pytest.raises(TypeError, match="`layer_normalization` must be True or False"):
        make(images(84, 84, 1), 2, layer_normalization=1)


@pytest.mark.parametrize("shape", [(35, 84, 4), (4, 84, 35), (4, 35, 35), (4, 84, 35, 3)], ids=str)
def test_images_that_are_too_small_for_nature(shape):
    with pytest.raises(ValueError, match=r"at least 36 x 36 pixels. Received: \d+ x \d+, shape"):
        nature_cnn(images(*shape), 2)


def test_images_that_are_too_small_for_minatar():
    with pytest.raises(ValueError, match=r"at least 3 x 3 pixels\. Received: 5 x 2, shape"):
        minatar_cnn(images(5, 2, 4), 2)
    assert minatar_cnn(images(3, 3, 4), 2).output_shape == (None, 2)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"width": 0}, ValueError, "`width` must be at least 1"),
        ({"width": 1.5}, ValueError, "`width` must be an integer"),
        ({"hidden_units": 0}, ValueError, "`hidden_units` must be at least 1"),
        ({"max_pooling": 0}, ValueError, "`max_pooling` must be at least 1"),
        ({"max_pooling": (6, 6)}, TypeError, "`max_pooling` must be an integer"),
        ({"spectral_normalization": None}, TypeError, "`spectral_normalization` must be True"),
    ],
    ids=str,
)
def test_refused_options_of_impala(kwargs, error, message):
    with pytest.raises(error, match=message):
        impala_cnn(images(8, 8, 1), 2, **kwargs)


class Pictures(Env):
    """Grey pictures with random pixels."""

    action_space = Discrete(2)

    def __init__(self, height, width):
        self.observation_space = images(height, width)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._picture(), {}

    def step(self, action):
        return self._picture(), 1.0, False, False, {}

    def _picture(self):
        return self.np_random.integers(256, size=self.observation_space.shape, dtype=np.uint8)


@pytest.mark.parametrize(("make", "height", "width"), **EACH)
def test_an_agent_trains_on_stacked_frames_saves_and_loads(make, height, width, tmp_path):
    env = FrameStackObservation(Pictures(height, width), 4)
    replay = keras_dqn.ReplayBuffer.from_env(env, 40, frame_stack=4, seed=0)
    observation, _ = env.reset(seed=0)
    for _ in range(8):
        following, *rest, _ = env.step(1)
        replay.add(observation, 1, *rest, following)
        observation = following
    agent = keras_dqn.DQN(make(env.observation_space, 2))
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    batch = replay.sample(3)
    x = batch[0]
    assert (x.shape, x.dtype) == ((3, 4, height, width), np.uint8)
    np.testing.assert_array_equal(agent.target_network(x), agent.network(x))
    agent.train_on_batch(*batch)
    values = agent.network(x)
    assert np.abs(values - agent.target_network(x)).max() > 0
    np.testing.assert_array_equal(agent.act(x), np.argmax(values, axis=-1))
    agent.save(tmp_path / "agent.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "agent.keras")(x), values)


@pytest.mark.parametrize(("make", "height", "width"), **EACH)
def test_a_saved_network_is_of_keras_alone(make, height, width, tmp_path):
    network = make(images(2, height, width, 3), (2, 3))
    network.save(tmp_path / "network.keras")
    assert "keras_dqn" not in network.to_json()
    observations = drawn(images(2, height, width, 3))
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(observations), network(observations))


def test_a_torso_for_a_head():
    torso = small_minatar(images(5, 6, 2), None)
    head = keras.layers.Dense(3)
    network = keras.Model(torso.input, head(torso.output))
    x = drawn(images(5, 6, 2))
    np.testing.assert_allclose(network(x), head(torso(x)), rtol=1e-5, atol=1e-6)


def test_bool_observations():
    space = images(10, 10, 4, dtype=bool, high=1)
    agent = keras_dqn.DQN(small_minatar(space, 3))
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    replay = keras_dqn.ReplayBuffer(20, space, Discrete(3), seed=0)
    for observation, following in zip(drawn(space, 10), drawn(space, 10, seed=1), strict=True):
        replay.add(observation, 1, 1.0, False, False, following)
    agent.train_on_batch(*replay.sample(3))
    x = drawn(space)
    np.testing.assert_allclose(agent.policy().action_values(x), agent.network(x), atol=1e-5)
