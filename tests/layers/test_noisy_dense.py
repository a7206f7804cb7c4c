"""`NoisyDense`: its formula, who draws and when, and what noise is not."""

import threading

import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn.layers import DuelingHead, NoisyDense
from keras_dqn.layers.noise import drawing, noise_given

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def make(units=2, **kwargs):
    layer = NoisyDense(units, **kwargs)
    layer.build((None, 3))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def reference(layer, x, noise):
    """Equation 9 of the paper, with noise `[F]`, for one row."""
    noise_in, noise_out = noise[:3], noise[3:]
    kernel = layer.kernel.numpy() + layer.kernel_sigma.numpy() * np.outer(noise_in, noise_out)
    bias = layer.bias.numpy() + layer.bias_sigma.numpy() * noise_out
    return np.array([sum(x[i] * kernel[i, j] for i in range(3)) + bias[j] for j in range(2)])


def test_the_mean_and_given_noise_against_the_reference():
    layer = make()
    for x, row in zip(X, layer(X).numpy(), strict=True):
        np.testing.assert_allclose(row, reference(layer, x, np.zeros(5)), rtol=1e-5)
    noise = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    with noise_given([layer], noise):
        outputs = layer(X).numpy()
    for x, row, numbers in zip(X, outputs, noise, strict=True):
        np.testing.assert_allclose(row, reference(layer, x, numbers), rtol=1e-4, atol=1e-5)


def test_an_environment_may_have_several_rows():
    layer = make(activation="tanh")
    noise = np.random.default_rng(2).normal(size=(2, 5)).astype(np.float32)
    with noise_given([layer], noise):
        outputs = layer(X).numpy()  # rows 0 and 1 are of the first environment
    for row in range(4):
        expected = np.tanh(reference(layer, X[row], noise[row // 2]))
        np.testing.assert_allclose(outputs[row], expected, rtol=1e-4, atol=1e-5)


def test_noise_is_split_among_layers_in_their_order():
    layers = [make(), make()]
    noise = np.random.default_rng(2).normal(size=(4, 10)).astype(np.float32)
    with noise_given(layers, noise):
        outputs = layers[1](X).numpy()
    np.testing.assert_allclose(
        outputs[2], reference(layers[1], X[2], noise[2, 5:]), rtol=1e-4, atol=1e-5
    )


def test_a_draw_is_factorised_and_shared_by_the_batch():
    """With kernel and bias 0 and sigma 1 the outputs for unit vectors are the noise itself."""
    layer = make()
    for weight in (layer.kernel, layer.bias):
        weight.assign(np.zeros(weight.shape))
    for weight in (layer.kernel_sigma, layer.bias_sigma):
        weight.assign(np.ones(weight.shape))
    with drawing():
        outputs = layer(np.concatenate([np.eye(3), np.zeros((1, 3))])).numpy()
    noise_out, kernel = outputs[3], outputs[:3] - outputs[3]
    noise_in = kernel[:, 0] / noise_out[0]
    np.testing.assert_allclose(kernel, np.outer(noise_in, noise_out), rtol=1e-4, atol=1e-5)


def test_draws_have_the_distribution_of_the_paper():
    """f(e) = sign(e) sqrt(|e|): the mean is 0, and the mean square is E|e| = sqrt(2 / pi)."""
    layer = NoisyDense(4_000, seed=0)
    layer.build((None, 1))
    layer.kernel.assign(np.zeros((1, 4_000)))
    layer.kernel_sigma.assign(np.zeros((1, 4_000)))
    layer.bias.assign(np.zeros(4_000))
    layer.bias_sigma.assign(np.ones(4_000))
    noise = layer(np.zeros((1, 1)), training=True).numpy()[0]
    assert abs(noise.mean()) < 5 * 0.9 / np.sqrt(4_000)
    assert abs((noise**2).mean() - np.sqrt(2 / np.pi)) < 5 * 0.61 / np.sqrt(4_000)


def test_the_first_weights_are_those_of_the_paper():
    layer = NoisyDense(500, sigma0=0.4)
    layer.build((None, 16))
    for weight in (layer.kernel, layer.bias):  # uniform in +-1/4
        values = weight.numpy()
        assert 0.2 < np.abs(values).max() <= 0.25
        assert abs(values.mean()) < 0.02
    for weight in (layer.kernel_sigma, layer.bias_sigma):
        np.testing.assert_allclose(weight, np.full(weight.shape, 0.1), rtol=1e-6)  # 0.4 / 4


def test_who_draws():
    layer = make()
    mean = layer(X).numpy()
    np.testing.assert_array_equal(layer(X, training=False), mean)
    assert np.abs(layer(X, training=True) - mean).min() > 0  # in other Keras models
    with drawing():
        first, second = layer(X, training=False).numpy(), layer(X, training=False).numpy()
    assert np.abs(first - mean).min() > 0
    assert np.abs(first - second).min() > 0
    np.testing.assert_array_equal(layer(X), mean)


def test_another_thread_does_not_see_the_context():
    """A collector may trace its policy while the training step is traced."""
    layer = make()
    mean = layer(X).numpy()
    seen = []
    with drawing():
        thread = threading.Thread(target=lambda: seen.append(layer(X).numpy()))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(seen[0], mean)


def test_noise_is_no_weight_and_targets_do_not_copy_it():
    layer = make()
    names = [weight.name for weight in layer.weights]
    assert names == ["kernel", "kernel_sigma", "bias", "bias_sigma"]
    agent = keras_dqn.DQN(keras.Sequential([keras.Input((3,)), make()]))
    online, target = (
        network.layers[0].seed_generator.state.numpy().tolist()
        for network in (agent.network, agent.target_network)
    )
    assert online != target
    with drawing():
        agent(X)
    agent.update_target()
    assert agent.target_network.layers[0].seed_generator.state.numpy().tolist() == target


def test_without_bias_and_in_mixed_precision():
    layer = make(use_bias=False, dtype="mixed_float16")
    assert len(layer.weights) == 2
    with drawing():
        outputs = layer(X)
    assert outputs.dtype == "float16"
    with noise_given([layer], np.zeros((4, 5), np.float32)):
        np.testing.assert_allclose(layer(X), X @ layer.kernel.numpy(), atol=2e-2)


def test_saving_keeps_what_is_drawn_next(tmp_path):
    model = keras.Sequential([keras.Input((3,)), NoisyDense(2, activation="relu", seed=5)])
    model(X, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    for _ in range(2):
        np.testing.assert_array_equal(loaded(X, training=True), model(X, training=True))


@pytest.mark.parametrize("kind", ["dense", "implicit"])
def test_a_training_step_draws_once_in_each_pass(kind):
    """Online, target and double choice: the generators move once, and twice for two passes."""
    if kind == "dense":
        network = keras.Sequential([keras.Input((3,)), NoisyDense(2)])
        agent = keras_dqn.DQN(network, double=True)
        online, target = network.layers[0], agent.target_network.layers[0]
    else:
        torso = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu")])
        agent = keras_dqn.ImplicitQuantileDQN(
            torso, DuelingHead(2, noisy=True), num_cosines=4, double=True
        )
        online, target = (net.head.value[0] for net in (agent.network, agent.target_network))
    agent.compile("sgd", jit_compile=False)
    ones = np.ones(4, np.float32)
    transition = {"action": np.zeros(4, np.int32), "reward": ones, "discount": ones}

    def draws_of(layer):
        return int(layer.seed_generator.state.numpy()[1])

    before = draws_of(online), draws_of(target)
    agent.train_on_batch(X, {**transition, "next_observation": X})
    assert (draws_of(online) - before[0], draws_of(target) - before[1]) == (2, 1)
    agent.test_on_batch(X, {**transition, "next_observation": X})
    agent.act(X)
    assert (draws_of(online) - before[0], draws_of(target) - before[1]) == (2, 1)


def test_the_size_of_the_noise_is_learned():
    agent = keras_dqn.DQN(keras.Sequential([keras.Input((3,)), NoisyDense(2)]))
    agent.compile(keras.optimizers.Adam(0.02), loss="mse", jit_compile=False)
    layer = agent.network.layers[0]
    before = np.abs(layer.kernel_sigma.numpy()).mean()
    transition = {
        "action": np.array([0, 1, 0, 1], np.int32),
        "reward": np.ones(4, np.float32),
        "discount": np.zeros(4, np.float32),
        "next_observation": X,
    }
    for _ in range(150):
        agent.train_on_batch(X, transition)
    assert np.abs(layer.kernel_sigma.numpy()).mean() < 0.5 * before  # a sure reward needs no noise


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`units` must be at least 1"):
        NoisyDense(0)
    with pytest.raises(ValueError, match="`sigma0` must be at least 0"):
        NoisyDense(2, sigma0=-0.1)
    with pytest.raises(TypeError, match="`use_bias` must be True or False"):
        NoisyDense(2, use_bias="yes")
    with pytest.raises(ValueError, match="`seed` must be at least 0"):
        NoisyDense(2, seed=-1)
