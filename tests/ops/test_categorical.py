"""Distributions over fixed values: by hand, by slow references, and by other libraries."""

import math

import numpy as np
import pytest

from keras_dqn import ops

SUPPORT = np.array([-1.0, -0.5, 0.0, 0.5, 1.0], np.float32)


def slow_projection(probabilities, atoms, support):
    """Algorithm 1 of Bellemare et al. (2017), atom by atom, with floor and ceiling."""
    width = (support[-1] - support[0]) / (len(support) - 1)
    projected = np.zeros((len(atoms), len(support)))
    for row in range(len(atoms)):
        for probability, atom in zip(probabilities[row], atoms[row], strict=True):
            position = (min(max(atom, support[0]), support[-1]) - support[0]) / width
            low, high = math.floor(position), math.ceil(position)
            if low == high:
                projected[row, low] += probability
            else:
                projected[row, low] += probability * (high - position)
                projected[row, high] += probability * (position - low)
    return projected


def random_distributions(rng, rows, num_atoms, scale):
    probabilities = rng.dirichlet(np.ones(num_atoms), rows).astype(np.float32)
    return probabilities, (rng.normal(size=(rows, num_atoms)) * scale).astype(np.float32)


def test_a_projection_by_hand():
    # -1.7 is clipped to -1: 0.1.   -0.5 is an atom: 0.4.
    # 0.3 is 0.6 of the way from 0 to 0.5: 0.3 * 0.4 and 0.3 * 0.6.
    # 2.0 is clipped to 1: 0.15.   0.9 is 0.8 of the way from 0.5 to 1: 0.05 * 0.2 and 0.05 * 0.8.
    atoms = np.array([[-1.7, -0.5, 0.3, 2.0, 0.9]], np.float32)
    probabilities = np.array([[0.1, 0.4, 0.3, 0.15, 0.05]], np.float32)
    expected = [[0.1, 0.4, 0.12, 0.18 + 0.01, 0.15 + 0.04]]
    np.testing.assert_allclose(ops.project(probabilities, atoms, SUPPORT), expected, rtol=1e-5)
    # RLax 0.1.9, categorical_l2_project(z_p, probs, z_q), Dopamine 4.1.2 and TF-Agents 0.19.0,
    # project_distribution(supports, weights, target_support), give the same five numbers.
    others = [[0.1, 0.4, 0.11999999731779099, 0.1900000125169754, 0.1899999976158142]]
    np.testing.assert_allclose(ops.project(probabilities, atoms, SUPPORT), others, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.3, 3.0], ids=["inside", "clipped"])
def test_projections_against_the_slow_reference(scale):
    support = np.linspace(-2.0, 4.0, 13).astype(np.float32)
    probabilities, atoms = random_distributions(np.random.default_rng(0), 20, 7, scale)
    projected = np.asarray(ops.project(probabilities, atoms, support))
    expected = slow_projection(probabilities, atoms, support)
    np.testing.assert_allclose(projected, expected, atol=1e-6)


def test_a_projection_keeps_the_sum_and_where_nothing_is_clipped_the_mean():
    support = np.linspace(-2.0, 4.0, 13).astype(np.float32)
    probabilities, atoms = random_distributions(np.random.default_rng(1), 50, 9, 2.0)
    projected = np.asarray(ops.project(probabilities, atoms, support))
    np.testing.assert_allclose(projected.sum(axis=1), 1.0, rtol=1e-5)
    inside = ((atoms >= -2.0) & (atoms <= 4.0)).all(axis=1)
    assert 0 < inside.sum() < 50
    means = (projected @ support, (probabilities * atoms).sum(axis=1))
    np.testing.assert_allclose(means[0][inside], means[1][inside], atol=1e-5)
    assert np.abs(means[0] - means[1])[~inside].max() > 0.01
    # Rows do not mix.
    order = np.random.default_rng(2).permutation(50)
    permuted = ops.project(probabilities[order], atoms[order], support)
    np.testing.assert_array_equal(permuted, projected[order])


def test_projecting_a_distribution_on_its_own_support_changes_nothing():
    probabilities, _ = random_distributions(np.random.default_rng(3), 4, 5, 1.0)
    atoms = np.tile(SUPPORT, (4, 1))
    np.testing.assert_allclose(ops.project(probabilities, atoms, SUPPORT), probabilities, rtol=1e-5)


def slow_histogram(value, edges, sigma):
    value = min(max(value, edges[0]), edges[-1])
    cdf = [0.5 * (1.0 + math.erf((edge - value) / (math.sqrt(2.0) * sigma))) for edge in edges]
    return np.diff(cdf) / (cdf[-1] - cdf[0])


def test_a_histogram_by_hand():
    # One standard deviation is one bin, the value is an edge. Phi(1) - Phi(0) = 0.3413,
    # Phi(2) - Phi(1) = 0.1359, and all bins together have 2 * Phi(2) - 1 = 0.9545.
    edges = np.array([-2.0, -1.0, 0.0, 1.0, 2.0], np.float32)
    histogram = ops.gaussian_histogram(np.zeros(1, np.float32), edges, 1.0)
    expected = np.array([[0.1359, 0.3413, 0.3413, 0.1359]]) / 0.9545
    np.testing.assert_allclose(histogram, expected, atol=1e-4)


def test_histograms_against_the_slow_reference_and_their_means():
    edges = np.linspace(-3.0, 5.0, 33).astype(np.float32)
    width = 0.25
    values = np.array([-9.0, -3.0, -2.9, 0.0, 0.11, 0.125, 1.7, 5.0, 80.0], np.float32)
    histograms = np.asarray(ops.gaussian_histogram(values, edges, 0.75 * width))
    expected = [slow_histogram(value, edges.astype(float), 0.75 * width) for value in values]
    np.testing.assert_allclose(histograms, expected, atol=2e-6)
    np.testing.assert_allclose(histograms.sum(axis=1), 1.0, rtol=1e-5)
    centres = (edges[1:] + edges[:-1]) / 2
    far = slice(3, 7)  # further than four bins from the edges
    # The bins round the Gaussian. With 0.75 bin widths its mean moves by less than 1e-3 of a bin.
    np.testing.assert_allclose((histograms @ centres)[far], values[far], atol=1e-3 * width)


def test_the_kl_divergence_by_hand():
    # softmax(0, log 3) = (1/4, 3/4); (1/2, 1/2) has 0.5 * log 2 + 0.5 * log(2/3) = 0.5 * log(4/3).
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75], [0.0, 1.0]], np.float32)
    logits = np.tile(np.array([0.0, np.log(3.0)], np.float32), (3, 1))
    expected = [0.5 * np.log(4 / 3), 0.0, np.log(4 / 3)]
    np.testing.assert_allclose(ops.kl_divergence(probabilities, logits), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: ops.project(x[0], x, SUPPORT), r"`probabilities` must have rank 2.*\(5,\)"),
        (lambda x: ops.project(x, x[0], SUPPORT), "`atoms` must have rank 2"),
        (lambda x: ops.project(x, x, x), "`support` must have rank 1"),
        (lambda x: ops.gaussian_histogram(x, SUPPORT, 1.0), "`values` must have rank 1"),
        (lambda x: ops.gaussian_histogram(x[0], x, 1.0), "`edges` must have rank 1"),
        (lambda x: ops.kl_divergence(x[0], x), "`probabilities` must have rank 2"),
        (lambda x: ops.kl_divergence(x, x[0]), "`logits` must have rank 2"),
    ],
)
def test_wrong_ranks_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call(np.full((2, 5), 0.2, np.float32))
