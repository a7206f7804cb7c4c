"""The sum tree against a plain array and its cumulative sum."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_dqn.replay.sum_tree import SumTree

CAPACITIES = [1, 2, 7, 50, 1000, 2**20]
some_examples = settings(max_examples=25, deadline=None, derandomize=True)
write = st.lists(st.tuples(st.integers(0, 2**20 - 1), st.integers(0, 9)), max_size=40)


def slow_find(leaves, mass):
    """Returns the leaf l with sum(leaves[:l]) <= mass < sum(leaves[: l + 1])."""
    return np.cumsum(leaves).searchsorted(mass, side="right")


def assert_same(tree, leaves, rng):
    """Compares with leaves whose sums are exact, at the edges of all leaves and between them."""
    np.testing.assert_array_equal(tree.leaves, leaves)
    total = leaves.sum()
    assert tree.total == total
    if not total:
        return
    edges = np.cumsum(leaves[leaves > 0])[:-1]
    edges = rng.choice(edges, 500) if len(edges) > 500 else edges
    mass = np.concatenate([[0.0, total - 0.5], edges, edges - 0.5, rng.random(20) * total])
    mass = rng.permutation(mass)
    expected = slow_find(leaves, mass)
    np.testing.assert_array_equal(tree.find(mass), expected)
    for size in (1, 3):  # as many levels as the masses are many are searched at one go
        np.testing.assert_array_equal(tree.find(mass[:size]), expected[:size])


@pytest.mark.parametrize("capacity", CAPACITIES)
@some_examples
@example(writes=[[]], seed=0)
@example(writes=[[(0, 1)], [(0, 0)], [(2**20 - 1, 3)]], seed=0)
@given(writes=st.lists(write, max_size=6), seed=st.integers(0, 1_000))
def test_tree_equals_the_cumulative_sum(capacity, writes, seed):
    rng = np.random.default_rng(seed)
    tree, leaves = SumTree(capacity), np.zeros(capacity)
    for batch in writes:
        for leaf, value in batch:
            leaves[leaf % capacity] = value  # of a leaf that occurs twice the last value counts
        at, values = np.array(batch, np.int64).reshape(-1, 2).T
        tree.set(at % capacity, values.astype(float))
    assert_same(tree, leaves, rng)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_writes_of_any_size(capacity):
    rng = np.random.default_rng(capacity)
    tree, leaves = SumTree(capacity), np.zeros(capacity)
    for size in (min(2 * capacity, 200_000), 1, capacity // 50, 3, capacity // 10):
        at, values = rng.integers(capacity, size=size), rng.integers(9, size=size) * 1.0
        tree.set(at, values)
        last = dict(zip(at.tolist(), values.tolist(), strict=True))
        leaves[list(last)] = list(last.values())
        assert_same(tree, leaves, rng)


@pytest.mark.parametrize("capacity", [1, 2, 7, 50])
def test_many_at_once_is_one_after_another(capacity):
    rng = np.random.default_rng(0)
    together, alone = SumTree(capacity), SumTree(capacity)
    at, values = rng.integers(capacity, size=200), rng.exponential(size=200)
    together.set(at, values)
    for leaf, value in zip(at, values, strict=True):
        alone.set(np.array([leaf]), value)
    assert together.total == alone.total  # to the last bit
    np.testing.assert_array_equal(together.leaves, alone.leaves)
    mass = rng.random(100) * alone.total
    np.testing.assert_array_equal(together.find(mass), [alone.find(m[None])[0] for m in mass])


@pytest.mark.parametrize("capacity", [7, 50, 1000])
def test_sums_do_not_drift(capacity):
    rng = np.random.default_rng(1)
    tree = SumTree(capacity)
    for _ in range(500):
        at = rng.integers(capacity, size=20)
        tree.set(at, 10.0 ** rng.uniform(-9, 9, size=20))
    tree.set(np.arange(capacity // 2), 1e-9)  # the large ones are gone, and so is their rounding
    fresh = SumTree(capacity)
    fresh.set(np.arange(capacity), tree.leaves.copy())
    assert tree.total == fresh.total == pytest.approx(tree.leaves.sum(), rel=1e-12)
    mass = rng.random(1_000) * fresh.total
    np.testing.assert_array_equal(tree.find(mass), fresh.find(mass))


@pytest.mark.parametrize("capacity", CAPACITIES)
@some_examples
@given(seed=st.integers(0, 10_000), filled=st.sampled_from([0.01, 0.5, 1.0]))
def test_floats_of_all_sizes(capacity, seed, filled):
    """A mass finds the leaf it falls into, but for the rounding of the sums, and no zero one."""
    rng = np.random.default_rng(seed)
    at = rng.integers(capacity, size=min(capacity, 2_000))
    values = 10.0 ** rng.uniform(-6, 6, len(at)) * (rng.random(len(at)) < filled)
    values[-1] = 1e-6
    tree = SumTree(capacity)
    tree.set(at, values)
    ends = np.cumsum(tree.leaves)
    total = tree.total
    assert total == pytest.approx(ends[-1], rel=1e-12)
    edges = ends[rng.choice(at, 200)]
    mass = np.concatenate(
        [[0.0], edges, np.nextafter(edges, 0), np.nextafter(edges, np.inf), rng.random(200) * total]
    )
    mass = np.minimum(mass, np.nextafter(total, 0))
    found = tree.find(mass)
    assert (tree.leaves[found] > 0).all()
    rounding = 1e-12 * total
    assert (mass < ends[found] + rounding).all()
    assert (mass >= ends[found] - tree.leaves[found] - rounding).all()


@pytest.mark.parametrize("num_filled", [1, 2, 7, 8, 33])
@pytest.mark.parametrize("capacity", [33, 50, 64, 1000])
def test_the_right_end_is_the_last_leaf_that_is_not_zero(capacity, num_filled):
    tree = SumTree(capacity)
    tree.set(np.arange(num_filled), 0.1)
    near = np.nextafter(tree.total, [0.0, np.inf])
    for mass in (tree.total, *near):  # a random number below 1 times the total may round up to it
        for copies in (1, 100):
            found = tree.find(np.full(copies, mass))
            np.testing.assert_array_equal(found, num_filled - 1)


def test_large_leaves_do_not_lead_to_zero_ones():
    """The sums before a leaf of 1e-9 after one of 1e9 are too coarse to place a mass in it."""
    tree = SumTree(64)
    tree.set(np.array([10, 12, 40]), np.array([1e9, 1e-9, 1e-9]))
    mass = np.append(1e9 * np.random.default_rng(0).random(1_000), [tree.total] * 3)
    for found in (tree.find(mass), np.array([tree.find(m[None])[0] for m in mass])):
        assert set(found.tolist()) <= {10, 12, 40}
        assert (found == 10).mean() > 0.99


def test_arguments_stay_as_they_are():
    tree = SumTree(50)
    at, values = np.arange(50), np.ones(50)
    tree.set(at, values)
    mass = np.arange(50.0)
    tree.find(mass)
    np.testing.assert_array_equal(at, np.arange(50))
    np.testing.assert_array_equal(values, 1.0)
    np.testing.assert_array_equal(mass, np.arange(50))
    values[:] = 5.0
    assert tree.total == 50.0


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_rebuild_sums_what_was_written_directly(capacity):
    rng = np.random.default_rng(2)
    tree = SumTree(capacity)
    tree.set(rng.integers(capacity, size=10), 3.0)
    tree.leaves[:] = rng.integers(9, size=capacity)
    tree.leaves[-1] = 1.0
    tree.rebuild()
    assert_same(tree, tree.leaves.copy(), rng)
