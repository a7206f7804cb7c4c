"""`DuelingHead`: its formula with both aggregates, shapes, streams, and saving."""

import keras
import numpy as np
import pytest

from keras_dqn.layers import DuelingHead, NoisyDense

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def make(*args, **kwargs):
    head = DuelingHead(*args, **kwargs)
    head.build((None, 3))
    rng = np.random.default_rng(1)
    for weight in head.weights:
        weight.assign(rng.normal(size=weight.shape))
    return head


def test_a_head_by_hand():
    head = make(3)
    value, advantage = head.value[0], head.advantage[0]
    value.set_weights([np.zeros((3, 1)), np.array([10.0])])
    advantage.set_weights([np.zeros((3, 3)), np.array([1.0, 2.0, 6.0])])
    np.testing.assert_allclose(head(X[:1]), [[8.0, 9.0, 13.0]])  # 10 + a - 3
    head.aggregate = "max"
    np.testing.assert_allclose(head(X[:1]), [[5.0, 6.0, 10.0]])  # 10 + a - 6


@pytest.mark.parametrize("aggregate", ["mean", "max"])
@pytest.mark.parametrize("num_outputs", [1, 5])
@pytest.mark.parametrize("hidden_units", [None, 4])
def test_heads_against_the_slow_reference(aggregate, num_outputs, hidden_units):
    head = make(2, num_outputs, aggregate, hidden_units=hidden_units)
    outputs = head(X).numpy()
    assert outputs.shape == ((4, 2) if num_outputs == 1 else (4, 2, 5))
    assert head.compute_output_shape((None, 3)) == (None, *outputs.shape[1:])

    def stream(layers, x):
        for layer in layers[:-1]:
            kernel, bias = layer.get_weights()
            x = np.maximum(0.0, x @ kernel + bias)
        kernel, bias = layers[-1].get_weights()
        return x @ kernel + bias

    for row in range(4):
        value = stream(head.value, X[row])
        advantage = stream(head.advantage, X[row]).reshape(2, num_outputs)
        for n in range(num_outputs):
            of_actions = advantage[:, n]
            baseline = of_actions.mean() if aggregate == "mean" else of_actions.max()
            expected = value[n] + of_actions - baseline
            np.testing.assert_allclose(
                outputs.reshape(4, 2, num_outputs)[row, :, n], expected, rtol=1e-4, atol=1e-5
            )


def test_a_noisy_head_has_noisy_layers_and_draws_in_training():
    head = make(2, 3, hidden_units=4, noisy=True)
    assert [type(layer) for layer in (*head.value, *head.advantage)] == [NoisyDense] * 4
    np.testing.assert_array_equal(head(X), head(X))
    assert np.abs(np.asarray(head(X, training=True)) - head(X)).min() > 0


def test_it_saves_and_loads(tmp_path):
    model = keras.Sequential([keras.Input((3,)), make(2, 5, "max", hidden_units=4, noisy=True)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))
    assert loaded.layers[0].get_config() == model.layers[0].get_config()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match='`aggregate` must be "mean" or "max"\\. Received: agg'):
        DuelingHead(2, aggregate="sum")
    with pytest.raises(ValueError, match="`num_actions` must be at least 1"):
        DuelingHead(0)
    with pytest.raises(ValueError, match="`num_outputs` must be at least 1"):
        DuelingHead(2, 0)
    with pytest.raises(ValueError, match="`hidden_units` must be at least 1"):
        DuelingHead(2, hidden_units=0)
    with pytest.raises(TypeError, match="`noisy` must be True or False"):
        DuelingHead(2, noisy=1)
