"""The prioritized buffer against a plain dict that keeps a priority for each key."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_dqn import PrioritizedReplayBuffer

NUMBERS = Discrete(10**7)


def make(capacity=50, **kwargs):
    kwargs = {"seed": 0, "alpha": 1.0} | kwargs
    return PrioritizedReplayBuffer(capacity, NUMBERS, Discrete(2), **kwargs)


def numbered(replay, numbers, terminated=False):
    """Adds one step from each number to the next to a buffer of one environment."""
    for number in numbers:
        replay.add(number, 0, 0.0, terminated, False, number + 1)


class Oracle:
    """Feeds a buffer and keeps a plain dict of what its priorities must be.

    Each environment has the list of all rows ever written: the number observed, or None for a
    boundary row. The key of a row is `index * num_envs + env`.
    """

    def __init__(self, replay, seed=0):
        self.replay = replay
        self.rng = np.random.default_rng(seed)
        self.rows = [[] for _ in range(replay.num_envs)]
        self.last = [None] * replay.num_envs  # the next observation of an episode that runs
        self.ever = {}  # the priority of each key, old ones too
        self.largest = 1.0
        self.count = 0

    def number(self):
        self.count += 1
        return self.count

    def step(self, stepped=0.7, end=0.2, reset=0.05):
        """Adds a step of some environments, of which some end and some were reset before."""
        observation, following = np.zeros((2, self.replay.num_envs), int)
        chances = np.array([[stepped], [end], [reset]])
        where, ends, resets = self.rng.random((3, self.replay.num_envs)) < chances
        for e in np.flatnonzero(where):
            if resets[e] and self.last[e] is not None:
                self.rows[e].append(None)
                self.last[e] = None
            observation[e] = self.number() if self.last[e] is None else self.last[e]
            following[e] = self.number()
            self.ever[len(self.rows[e]) * self.replay.num_envs + e] = self.largest
            self.rows[e].append(int(observation[e]))
            if ends[e]:
                self.rows[e].append(None)
            self.last[e] = None if ends[e] else following[e]
        nothing = np.zeros(self.replay.num_envs, int)
        self.replay.add(
            observation, nothing, nothing, ends, np.zeros_like(ends), following, where=where
        )

    @property
    def priorities(self):
        """{key: priority} of the transitions that are stored."""
        return {key: self.ever[key] for key in self.stored()}

    def stored(self):
        """Returns {key: number} of the transitions that are stored."""
        num_envs = self.replay.num_envs
        num_rows = self.replay.capacity // num_envs
        return {
            t * num_envs + e: rows[t]
            for e, rows in enumerate(self.rows)
            for t in range(max(len(rows) - num_rows, 0), len(rows))
            if rows[t] is not None
        }

    def update(self, keys, td_error):
        self.replay.update_priorities(keys, td_error)
        stored = self.stored()
        for key, error in zip(np.ravel(keys).tolist(), np.ravel(td_error).tolist(), strict=True):
            if key in stored:
                self.ever[key] = abs(error) + self.replay.epsilon
                self.largest = max(self.largest, self.ever[key])

    def feed_back(self, num_updates=1, batch_size=8):
        """Gives new priorities to keys of which some are twice there, old, or were never."""
        newest = max(map(len, self.rows)) * self.replay.num_envs + 3
        keys = self.rng.integers(-3, newest, size=(num_updates, batch_size))
        if stored := list(self.stored()):
            keys[:, ::2] = self.rng.choice(stored, keys[:, ::2].shape)
        keys[:, 5] = keys[:, 6]
        self.update(keys, self.rng.integers(-20, 20, size=keys.shape))

    def feed_back_all(self, td_error):
        """Gives each stored transition a priority of its own."""
        keys = np.array(list(self.priorities))
        self.update(keys, td_error(np.arange(len(keys))))


def values_of(replay):
    """Returns {key: v} of all transitions with v > 0, in the order in which v is summed."""
    replay._sampler.take_new_rows()
    leaves = replay._sampler.priorities.tree().leaves
    slots = np.flatnonzero(leaves)
    env, row = replay._rings.rows(slots)
    return dict(zip((row * replay.num_envs + env).tolist(), leaves[slots].tolist(), strict=True))


def expected_values(replay, priorities):
    """Returns {key: v}; of equal priorities any may have the smaller rank."""
    if replay.variant == "proportional":
        return {key: p**replay.alpha for key, p in priorities.items()}
    found = values_of(replay)
    by_rank = sorted(priorities, key=lambda key: (-priorities[key], -found.get(key, 0.0)))
    return {key: (rank + 1.0) ** -replay.alpha for rank, key in enumerate(by_rank)}


def assert_values(replay, priorities):
    found, expected = values_of(replay), expected_values(replay, priorities)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[key] for key in expected], list(expected.values()), 1e-12)


def assert_strata(replay, keys):
    """Draw i of B falls into leaves that reach into the i-th of B equal parts of their sum."""
    values = values_of(replay)
    ends = np.cumsum(list(values.values()))
    place = {key: i for i, key in enumerate(values)}
    drawn = [place[key] for key in keys.tolist()]
    parts = np.arange(len(keys) + 1) / len(keys) * ends[-1]
    rounding = 1e-9 * ends[-1]
    assert (ends[drawn] >= parts[:-1] - rounding).all()
    assert (ends[drawn] - np.array(list(values.values()))[drawn] <= parts[1:] + rounding).all()


def assert_weights(replay, priorities, keys, weight, beta):
    """`(N * P)**-beta` over its maximum in the batch, by brute force."""
    values = expected_values(replay, priorities)
    total = sum(values.values())
    raw = [(len(values) * values[key] / total) ** -beta for key in keys.tolist()]
    np.testing.assert_allclose(weight, np.array(raw) / max(raw), rtol=1e-5)


def assert_frequencies(counts, probabilities):
    """Chi-square; strata only make it smaller."""
    assert counts.keys() == probabilities.keys()
    expected = sum(counts.values()) * np.array([probabilities[key] for key in counts])
    chi_square = ((np.array(list(counts.values())) - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    assert chi_square < freedom + 6 * np.sqrt(2 * freedom) + 10


def count_draws(replay, batch_size, num_draws=10**6, **kwargs):
    """Returns {key: how often it was drawn}."""
    _, transition, _ = replay.sample(batch_size, num_batches=num_draws // batch_size, **kwargs)
    keys, counts = np.unique(transition["key"], return_counts=True)
    assert counts.sum() == num_draws
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def normalised(values):
    total = sum(values.values())
    return {key: value / total for key, value in values.items()}


# Priorities


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    num_envs=st.sampled_from([1, 3]),
    rows=st.sampled_from([1, 2, 7, 50]),
    variant=st.sampled_from(["proportional", "rank"]),
    alpha=st.sampled_from([0, 0.6, 1, 2.0]),
    calls=st.lists(st.sampled_from(["step", "steps", "feed_back", "stack", "draw"]), max_size=30),
    seed=st.integers(0, 10_000),
)
def test_priorities_are_those_of_a_dict(num_envs, rows, variant, alpha, calls, seed):
    replay = make(rows * num_envs, num_envs=num_envs, variant=variant, alpha=alpha, epsilon=0.5)
    oracle = Oracle(replay, seed)
    for call in calls:
        if call.startswith("step"):
            for _ in range(1 if call == "step" else 2 * rows):
                oracle.step()
        elif call == "draw" and oracle.priorities:
            observation, transition, weight = replay.sample(5)
            keys = transition["key"]
            numbers = oracle.stored()
            assert observation.tolist() == [numbers[key] for key in keys.tolist()]
            assert_strata(replay, keys)
            assert_weights(replay, oracle.priorities, keys, weight, beta=0.4)
        elif call in ("feed_back", "stack"):
            oracle.feed_back(num_updates=1 if call == "feed_back" else 3)
    assert len(replay) == len(oracle.priorities)
    assert_values(replay, oracle.priorities)


@pytest.mark.parametrize("variant", ["proportional", "rank"])
@pytest.mark.parametrize("capacity", [1_000, 2**20])
def test_priorities_of_a_large_buffer(capacity, variant):
    replay = make(capacity, variant=variant, num_envs=2)
    oracle = Oracle(replay)
    for round_ in range(3):
        for _ in range(400):
            oracle.step()
        oracle.feed_back_all(lambda i, seed=round_: np.random.default_rng(seed).permutation(i))
        oracle.feed_back(num_updates=4)
        _, transition, weight = replay.sample(64)
        assert_strata(replay, transition["key"])
        assert_weights(replay, oracle.priorities, transition["key"], weight, beta=0.4)
    assert_values(replay, oracle.priorities)


def test_new_transitions_have_the_largest_priority_there_ever_was():
    replay = make(epsilon=0.25)
    numbered(replay, [0, 1])
    assert values_of(replay) == {0: 1.0, 1: 1.0}
    replay.update_priorities([0, 1], [0.25, -0.5])  # below 1, which the first ones had
    numbered(replay, [2])
    assert values_of(replay) == {0: 0.5, 1: 0.75, 2: 1.0}
    replay.update_priorities([1], [-6.75])
    numbered(replay, [3])
    replay.update_priorities([1], [0.75])
    numbered(replay, [4])
    assert values_of(replay) == {0: 0.5, 1: 1.0, 2: 1.0, 3: 7.0, 4: 7.0}


def test_steps_added_before_feedback_entered_before_it():
    replay = make(epsilon=0.25)
    numbered(replay, [0])
    replay.sample(1)
    numbered(replay, [1])
    replay.update_priorities([0], [7.75])
    assert values_of(replay) == {0: 8.0, 1: 1.0}


def test_last_value_of_a_key_that_occurs_twice_counts():
    replay = make(epsilon=0.25)
    numbered(replay, range(3))
    replay.update_priorities([0, 1, 0], [1.0, 2.0, 3.0])
    assert values_of(replay) == {0: 3.25, 1: 2.25, 2: 1.0}
    replay.update_priorities([[0, 1], [2, 0]], [[9.0, 8.0], [7.0, 6.0]])
    assert values_of(replay) == {0: 6.25, 1: 8.25, 2: 7.25}


@pytest.mark.parametrize("variant", ["proportional", "rank"])
def test_late_feedback_never_hits_a_newer_transition(variant):
    replay = make(4, epsilon=0.5, variant=variant)
    numbered(replay, range(4))
    late = replay.sample(20)[1]["key"]
    numbered(replay, range(4, 6))  # takes the slots of the keys 0 and 1
    assert {0, 1} < set(late.tolist())
    before = values_of(replay)
    assert before.keys() == {2, 3, 4, 5}
    old = late[late < 2]
    replay.update_priorities(old, np.full(old.shape, 99.0))
    assert values_of(replay) == before
    replay.update_priorities([0, 3, 1], [99.0, 4.5, 99.0])
    numbered(replay, [6])  # enters with 5, not with 99.5
    expected = {3: 5.0, 4: 1.0, 5: 1.0, 6: 5.0}
    assert_values(replay, expected)


@pytest.mark.parametrize("key", [-1, 1, 2, 10**15], ids=["below", "boundary", "to_come", "far"])
def test_feedback_for_what_is_no_transition_is_ignored(key):
    replay = make()
    numbered(replay, [0], terminated=True)
    replay.update_priorities([key], [99.0])
    assert values_of(replay) == {0: 1.0}
    assert replay.updates == 1
    numbered(replay, [5])
    assert values_of(replay) == {0: 1.0, 2: 1.0}


def test_keys_are_never_used_twice():
    replay = make(6, num_envs=2)
    oracle = Oracle(replay)
    numbers = {}
    for _ in range(200):
        oracle.step()
        if oracle.priorities:
            observation, transition, _ = replay.sample(20)
            for key, number in zip(transition["key"].tolist(), observation.tolist(), strict=True):
                assert numbers.setdefault(key, number) == number
    assert len(set(numbers.values())) == len(numbers) > 100


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_keys_of_any_integer_type(dtype):
    replay = make(2_000, epsilon=0.5, num_envs=2)
    for t in range(100):
        replay.add([t, t], [0, 0], [0.0] * 2, [False] * 2, [False] * 2, [t + 1, t + 1])
    replay.update_priorities(np.array([3, 127], dtype), np.array([1.0, 2.0], np.float32))
    values = values_of(replay)
    assert (values[3], values[127], values[2]) == (1.5, 2.5, 1.0)


def test_feedback_as_tensors():
    replay = make(epsilon=0.5)
    numbered(replay, range(2))
    replay.update_priorities(tf.constant([1], tf.int64), tf.constant([-2.0]))
    assert values_of(replay) == {0: 1.0, 1: 2.5}


def test_feedback_for_nothing():
    replay = make()
    replay.update_priorities(np.zeros(0, int), np.zeros(0))
    numbered(replay, [0])
    replay.update_priorities(np.zeros(0, int), np.zeros(0))
    assert values_of(replay) == {0: 1.0}


REFUSED_FEEDBACK = {
    "nan": ([0, 1], [2.0, np.nan], "`td_error` must be finite. Received: td_error=.*nan"),
    "infinite": ([0, 1], [-np.inf, 2.0], "`td_error` must be finite"),
    "shape": ([0, 1], [[2.0, 2.0]], r"must have their shape. Received: keys of int64 \(2,\)"),
    "length": ([0, 1], [2.0], r"td_error of shape \(1,\)"),
    "float_keys": ([0.0, 1.0], [2.0, 2.0], "`keys` must be integers.*keys of float64"),
    "bool_keys": ([True, False], [2.0, 2.0], "`keys` must be integers.*keys of bool"),
}


@pytest.mark.parametrize(
    ("keys", "td_error", "message"), REFUSED_FEEDBACK.values(), ids=REFUSED_FEEDBACK.keys()
)
@pytest.mark.parametrize("variant", ["proportional", "rank"])
def test_refused_feedback_changes_nothing(variant, keys, td_error, message):
    replay = make(epsilon=0.5, variant=variant)
    numbered(replay, range(3))
    replay.update_priorities([0, 1, 2], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=message):
        replay.update_priorities(keys, td_error)
    assert replay.updates == 1
    numbered(replay, [3])
    assert_values(replay, {0: 1.5, 1: 2.5, 2: 3.5, 3: 3.5})


# Ranks


@pytest.mark.parametrize("alpha", [0, 0.7, 1])
def test_ranks_are_exact_and_move_with_each_change(alpha):
    replay = make(variant="rank", alpha=alpha, epsilon=0.5)
    numbered(replay, range(4))
    replay.update_priorities([0, 1, 2, 3], [3.0, -40.0, 0.0, 7.0])
    ranks = {0: 3, 1: 1, 2: 4, 3: 2}
    assert values_of(replay) == {key: pytest.approx(rank**-alpha) for key, rank in ranks.items()}
    replay.update_priorities([1], [5.0])
    ranks = {0: 3, 1: 2, 2: 4, 3: 1}
    assert values_of(replay) == {key: pytest.approx(rank**-alpha) for key, rank in ranks.items()}


def test_outliers_do_not_matter_to_ranks():
    moderate, wild = make(variant="rank"), make(variant="rank")
    for replay, scale in ((moderate, 1.0), (wild, 1e30)):
        numbered(replay, range(5))
        replay.update_priorities(range(5), scale * np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
    assert values_of(moderate) == values_of(wild)


def test_ranks_close_up_when_transitions_are_overwritten():
    replay = make(3, variant="rank", epsilon=0.5)
    numbered(replay, range(3))
    replay.update_priorities(range(3), [9.0, 8.0, 7.0])
    numbered(replay, [3])  # the key 0 had rank 1; the new one shares its priority
    assert values_of(replay) == {1: 1 / 2, 2: 1 / 3, 3: 1.0}


@pytest.mark.parametrize("num_transitions", [10_000, 12_000])
def test_many_ranks_are_sorted_when_a_twentieth_has_changed(num_transitions):
    replay = make(2 * num_transitions, variant="rank", epsilon=0.5)
    numbered(replay, range(num_transitions))
    keys = np.arange(num_transitions)
    priorities = {key: key + 0.5 for key in keys.tolist()}
    replay.update_priorities(keys, keys)
    assert_values(replay, priorities)
    values = values_of(replay)
    changed = np.arange(num_transitions // 25)
    replay.update_priorities(changed, num_transitions - 10 * changed)
    priorities |= {key: num_transitions - 10 * key + 0.5 for key in changed.tolist()}
    if num_transitions == 10_000:
        assert_values(replay, priorities)
        return
    # Each takes the rank of its priority in the last sort, where key k had rank n - k: that of
    # n + 0.5 is the first, that of n - 10 k + 0.5 the rank of the key n - 10 k.
    rank = np.maximum(10 * changed, 1)
    late = values | dict(zip(changed.tolist(), (1.0 / rank).tolist(), strict=True))
    assert values_of(replay) == pytest.approx(late)
    further = np.arange(5_000, 5_000 + num_transitions // 50)
    replay.update_priorities(further, further + 0.25)
    priorities |= {key: key + 0.75 for key in further.tolist()}
    assert_values(replay, priorities)


def test_new_and_overwritten_transitions_between_two_sorts():
    replay = make(11_000, variant="rank", epsilon=0.5)
    numbered(replay, range(11_000))
    replay.update_priorities(np.arange(11_000), np.arange(11_000))
    before = values_of(replay)
    numbered(replay, [11_000, 11_001])
    expected = {key: before[key] for key in range(2, 11_000)} | {11_000: 1.0, 11_001: 1.0}
    assert values_of(replay) == expected


# Drawing


@pytest.mark.parametrize("batch_size", [1, 64, 1_000])
@pytest.mark.parametrize("variant", ["proportional", "rank"])
def test_a_million_draws(variant, batch_size):
    replay = make(60, num_envs=3, variant=variant, alpha=0.7, epsilon=0.01)
    oracle = Oracle(replay)
    for _ in range(40):
        oracle.step()
    oracle.feed_back_all(lambda i: (i - 20.0) ** 3 / 1_000 + i * 0.01)
    counts = count_draws(replay, batch_size)
    assert_frequencies(counts, normalised(expected_values(replay, oracle.priorities)))


@pytest.mark.parametrize("variant", ["proportional", "rank"])
@pytest.mark.parametrize("batch_size", [1, 50])
def test_alpha_zero_draws_uniformly(variant, batch_size):
    replay = make(30, variant=variant, alpha=0.0)
    numbered(replay, range(30))
    replay.update_priorities(range(30), np.arange(30.0) ** 3)
    assert_frequencies(count_draws(replay, batch_size), dict.fromkeys(range(30), 1 / 30))
    np.testing.assert_array_equal(replay.sample(50)[2], 1.0)


@pytest.mark.parametrize("num_batches", [None, 5])
def test_each_stratum_gives_one_draw(num_batches):
    """16 equal priorities and 16 strata: each transition once a batch."""
    replay = make(16)
    numbered(replay, range(16))
    keys = replay.sample(16, num_batches=num_batches)[1]["key"].reshape(-1, 16)
    np.testing.assert_array_equal(keys, np.tile(np.arange(16), (num_batches or 1, 1)))


@pytest.mark.parametrize("num_batches", [None, 5])
def test_strata_stay_where_nothing_was_incomplete(num_batches):
    """Only the draws of the last two of 16 transitions, which lack 3 steps, are made again."""
    replay = make(16)
    numbered(replay, range(16))
    keys = replay.sample(16, n_step=3, num_batches=num_batches)[1]["key"].reshape(-1, 16)
    np.testing.assert_array_equal(keys[:, :14], np.tile(np.arange(14), (num_batches or 1, 1)))
    assert keys.max() == 13


def test_draws_differ_within_a_stratum():
    """Four strata of 8 transitions each: every one of them comes, and in no fixed pattern."""
    replay = make(32)
    numbered(replay, range(32))
    keys = replay.sample(4, num_batches=400)[1]["key"]
    for stratum in range(4):
        drawn = keys[:, stratum]
        assert set(drawn.tolist()) == set(range(8 * stratum, 8 * stratum + 8))
    assert np.abs(np.corrcoef(keys.T) - np.eye(4)).max() < 0.25  # 1 / sqrt(400) apart is 0.05
    along = [np.corrcoef(keys[:-1, stratum], keys[1:, stratum])[0, 1] for stratum in range(4)]
    assert np.abs(along).max() < 0.25


def test_each_batch_of_a_stack_is_drawn_by_strata():
    replay = make(60, num_envs=3, alpha=0.7, epsilon=0.01)
    oracle = Oracle(replay)
    for _ in range(40):
        oracle.step()
    oracle.feed_back_all(lambda i: (i - 20.0) ** 3 / 1_000 + i * 0.01)
    for keys in replay.sample(10, num_batches=200)[1]["key"]:
        assert_strata(replay, keys)


def test_a_transition_of_nearly_all_the_priority_is_drawn_with_replacement():
    replay = make()
    numbered(replay, range(10))
    replay.update_priorities([4], [1e9])
    assert replay.sample(100)[1]["key"].tolist() == [4] * 100


def test_same_seed_gives_the_same_draws():
    draws = []
    for seed in (3, 3, 4):
        replay = make(seed=seed)
        numbered(replay, range(30))
        draws.append(replay.sample(100)[1]["key"].tolist())
    assert draws[0] == draws[1] != draws[2]


def test_key_is_a_column_of_sample_and_dataset():
    replay, twin = make(), make()
    for buffer in (replay, twin):
        numbered(buffer, range(9))
    assert replay.empty_batch()[1]["key"].dtype == np.int64
    dataset = replay.dataset(4)
    assert dataset.element_spec[1]["key"] == tf.TensorSpec((4,), tf.int64)
    observation, transition, weight = next(iter(dataset))
    drawn = twin.sample(4)
    assert drawn[1]["key"].dtype == np.int64
    assert drawn[2].dtype == np.float32
    np.testing.assert_array_equal(transition["key"], drawn[1]["key"])
    np.testing.assert_array_equal(observation, drawn[0])
    np.testing.assert_array_equal(weight, drawn[2])


def test_nothing_to_draw_is_an_error():
    replay = make(1)
    with pytest.raises(RuntimeError, match="buffer is empty"):
        replay.sample(1)
    numbered(replay, [0], terminated=True)  # the one row is a boundary row now
    with pytest.raises(RuntimeError, match="buffer is empty"):
        replay.sample(1)
    numbered(replay, [5])
    assert replay.sample(3)[1]["key"].tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match=r"window of 2 steps yet.*n_step=2, stored=1"):
        replay.sample(1, n_step=2)


@pytest.mark.parametrize("variant", ["proportional", "rank"])
@pytest.mark.parametrize("boost", [5.0, 1e9], ids=["redrawn", "hardly_ever_complete"])
def test_incomplete_windows_are_drawn_again(variant, boost):
    """Of 2 environments the last 2 starts have no 3 steps: they are left out of the sum."""
    replay = make(100, num_envs=2, variant=variant, alpha=1, epsilon=0.5)
    for t in range(20):
        ends = [t == 9, False]
        replay.add([t, 100 + t], [0, 0], [0.0] * 2, ends, [False] * 2, [t + 1, 101 + t])
    last = {2 * 20, 2 * 19, 2 * 19 + 1, 2 * 18 + 1}  # environment 0 has a boundary row more
    keys = np.array(sorted(values_of(replay)))
    assert last < set(keys.tolist())
    td_error = np.where(np.isin(keys, list(last)), boost + keys, keys % 7 + keys / 100)
    replay.update_priorities(keys, td_error)
    values = values_of(replay)
    complete = {key: value for key, value in values.items() if key not in last}
    if boost > 1e6 and variant == "proportional":
        assert sum(complete.values()) < 1e-6 * sum(values.values())
    counts = count_draws(replay, 50, num_draws=10**5, n_step=3)
    assert_frequencies(counts, normalised(complete))
    _, transition, weight = replay.sample(50, n_step=3)
    smallest = min(complete[key] for key in transition["key"].tolist())
    expected = [(smallest / complete[key]) ** 0.4 for key in transition["key"].tolist()]
    np.testing.assert_allclose(weight, expected, rtol=1e-5)


def test_stacked_frames():
    """Step s of episode j shows the number 10 j + s, whose key is 2 larger: older frames lie there.

    Of the 12 rows that are left the first holds a step whose older frames are lost.
    """
    space = Box(0, 255, (3,), np.uint8)
    replay = PrioritizedReplayBuffer(12, space, Discrete(2), frame_stack=3, epsilon=0.5, seed=0)
    for number in range(40):
        episode, s = 10 * (number // 10), number % 10
        if s < 7:
            stacks = [episode + np.maximum([t - 2, t - 1, t], 0) for t in (s, s + 1)]
            replay.add(np.uint8(stacks[0]), 0, 0.0, s == 6, False, np.uint8(stacks[1]))
    assert values_of(replay).keys() == {28, *range(32, 39)}
    replay.update_priorities([28, 33], [99.0, 5.0])
    observation, transition, _ = replay.sample(2_000)
    keys = transition["key"]
    np.testing.assert_array_equal(observation[:, -1] + 2, keys)
    np.testing.assert_array_equal(observation[:, 0], np.maximum(keys - 4, 30))
    weights = {key: 5.5**0.6 if key == 33 else 1.0 for key in range(32, 39)}
    counts = dict(zip(*(c.tolist() for c in np.unique(keys, return_counts=True)), strict=True))
    assert_frequencies(counts, normalised(weights))


# Weights


@pytest.mark.parametrize("beta", [0, 0.4, 1.0, 3])
@pytest.mark.parametrize("variant", ["proportional", "rank"])
def test_weights_are_those_of_the_formula(variant, beta):
    replay = make(60, num_envs=3, variant=variant, alpha=0.6, beta=beta)
    oracle = Oracle(replay)
    for _ in range(40):
        oracle.step()
    oracle.feed_back_all(lambda i: (i - 20.0) ** 3 / 1_000 + i * 0.01)
    _, transition, weight = replay.sample(16, num_batches=5)
    assert weight.shape == (5, 16)
    for keys, row in zip(transition["key"], weight, strict=True):
        assert row.max() == 1.0
        assert_weights(replay, oracle.priorities, keys, row, beta)
    assert (len(np.unique(weight.min(axis=1))) == 1) == (beta == 0)  # each batch has its own


def test_weights_in_numbers():
    """With v of 1, 4 and 16 and beta of a half the weights are 1, 1/2 and 1/4."""
    replay = make(alpha=2.0, beta=0.5, epsilon=0.5)
    numbered(replay, range(3))
    replay.update_priorities([0, 1, 2], [0.5, -1.5, 3.5])
    _, transition, weight = replay.sample(21)
    assert transition["key"].tolist() == [0] * 1 + [1] * 4 + [2] * 16
    np.testing.assert_allclose(weight, [1.0] + [0.5] * 4 + [0.25] * 16)
    replay.update_priorities([0], [3.5])
    np.testing.assert_allclose(replay.sample(36)[2], [0.5] * 16 + [1.0] * 4 + [0.5] * 16)


def test_beta_is_a_function_of_the_updates_fed_back():
    asked = []

    def beta(updates):
        asked.append(updates)
        return updates / 4

    replay = make(beta=beta, epsilon=0.5)
    numbered(replay, range(2))
    replay.update_priorities([0, 1], [0.5, 15.5])  # v of 1 and 16; the first update
    assert replay.updates == 1

    def weights(**kwargs):
        _, transition, weight = replay.sample(17, **kwargs)
        assert (transition["key"].reshape(-1, 17) == [0] + [1] * 16).all()
        return weight[..., -1].tolist()

    assert weights() == pytest.approx(16**-0.25)
    assert weights() == pytest.approx(16**-0.25)  # a draw is no update
    assert weights(num_batches=3) == pytest.approx([16**-0.25, 16**-0.5, 16**-0.75])
    assert asked == [1, 1, 1, 2, 3]
    replay.update_priorities([[0], [0], [0]], [[0.5], [0.5], [0.5]])
    assert replay.updates == 4
    assert weights(num_batches=1) == pytest.approx([1 / 16])


@pytest.mark.parametrize("beta", [-0.1, np.nan, np.inf])
def test_a_beta_function_outside_its_range_is_refused(beta):
    replay = make(beta=lambda updates: beta)
    numbered(replay, [0])
    with pytest.raises(ValueError, match=f"`beta` must be at least 0.*Received: beta={beta}"):
        replay.sample(1)


# Arguments


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"alpha": -0.1}, "`alpha` must be at least 0. Received: alpha=-0.1"),
        ({"alpha": np.nan}, "`alpha` must be at least 0. Received: alpha=nan"),
        ({"alpha": np.inf}, "`alpha` must be at least 0"),
        ({"beta": -0.1}, "`beta` must be at least 0.*Received: beta=-0.1"),
        ({"beta": np.nan}, "`beta` must be at least 0.*Received: beta=nan"),
        ({"beta": None}, "`beta` must be at least 0.*Received: beta=None"),
        ({"epsilon": 0.0}, "`epsilon` must be above 0. Received: epsilon=0.0"),
        ({"epsilon": np.inf}, "`epsilon` must be above 0. Received: epsilon=inf"),
        ({"variant": "ranked"}, r"`variant` must be one of \['proportional', 'rank'\]. .*ranked"),
        ({"capacity": 0}, "`capacity` must hold"),
    ],
    ids=lambda value: (
        "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else ""
    ),
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_arguments_are_kept_and_defaults_are_the_papers():
    replay = PrioritizedReplayBuffer(9, NUMBERS, Discrete(2))
    assert (replay.alpha, replay.beta, replay.epsilon, replay.variant) == (
        0.6,
        0.4,
        1e-6,
        "proportional",
    )
    replay = make(9, alpha=0.7, beta=0.5, epsilon=1e-3, variant="rank", num_envs=3)
    assert (replay.alpha, replay.beta, replay.epsilon, replay.variant) == (0.7, 0.5, 1e-3, "rank")
    assert (replay.capacity, replay.num_envs, replay.updates) == (9, 3, 0)


# A buffer that nobody feeds back to


def test_iterating_without_feedback_warns_once():
    replay = make()
    numbered(replay, range(9))
    iterator = iter(replay.dataset(2))
    for _ in range(100):
        next(iterator)
    with pytest.warns(UserWarning, match="100 batches were drawn.*no TD error came back"):
        next(iterator)
    for _ in range(200):
        next(iterator)


def test_iterating_with_feedback_does_not_warn():
    replay = make()
    numbered(replay, range(9))
    batches = iter(replay.dataset(2))
    stacks = iter(replay.dataset(2).stacked(128))
    for _ in range(3):
        for _ in range(99):
            key = next(batches)[1]["key"]
        replay.update_priorities(key, [1.0, 2.0])
        keys = next(stacks)[1]["key"]
        replay.update_priorities(keys, np.ones((128, 2)))


def test_sample_alone_does_not_warn():
    replay = make()
    numbered(replay, range(9))
    for _ in range(300):
        replay.sample(2)
