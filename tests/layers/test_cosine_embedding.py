"""`CosineEmbedding` by hand, and its config."""

import keras
import numpy as np
import pytest

from keras_dqn.layers import CosineEmbedding


def test_an_embedding_by_hand():
    """cos(pi / 3) = 0.5 and cos(2 pi / 3) = -0.5; cos(pi) = -1 and cos(2 pi) = 1."""
    layer = CosineEmbedding(2, num_cosines=2)
    layer.build((None, 2))
    layer.dense.set_weights([np.array([[1.0, 0.0], [3.0, -2.0]]), np.array([0.25, 0.0])])
    outputs = layer(np.array([[1 / 3, 1.0]], np.float32))
    # 0.5 - 1.5 + 0.25 < 0, so 0; -0.5 * -2 = 1.   -1 + 3 + 0.25 = 2.25; 1 * -2 < 0, so 0.
    np.testing.assert_allclose(outputs, [[[0.0, 1.0], [2.25, 0.0]]], atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_fractions_stay_float32_in_mixed_precision(dtype):
    """A fraction in bfloat16 has an error of 1 / 512, at 64 pi an angle of 0.4."""
    fractions = np.random.default_rng(0).uniform(size=(4, 8)).astype(np.float32)
    single, mixed = CosineEmbedding(6), CosineEmbedding(6, dtype=dtype)
    expected = single(fractions)
    mixed.build(fractions.shape)
    mixed.set_weights(single.get_weights())
    outputs = mixed(keras.ops.convert_to_tensor(fractions))
    assert outputs.dtype == dtype.removeprefix("mixed_")
    np.testing.assert_allclose(keras.ops.cast(outputs, "float32"), expected, atol=0.03)


def test_config_and_shape():
    layer = CosineEmbedding(5, num_cosines=7)
    assert CosineEmbedding.from_config(layer.get_config()).get_config() == layer.get_config()
    assert layer.compute_output_shape((None, 3)) == (None, 3, 5)
    assert layer(np.full((2, 3), 0.5, np.float32)).shape == (2, 3, 5)
    assert keras.tree.map_structure(lambda w: w.shape, layer.weights) == [(7, 5), (5,)]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`units` must be at least 1"):
        CosineEmbedding(0)
    with pytest.raises(ValueError, match="`num_cosines` must be at least 1"):
        CosineEmbedding(3, 0)
