"""A buffer's `get_state` and `set_state`, against the buffer itself."""

import copy
import json

import gymnasium as gym
import numpy as np
import pytest

from keras_dqn import PrioritizedReplayBuffer, ReplayBuffer

KINDS = {
    "uniform": (ReplayBuffer, {}),
    "prioritized": (PrioritizedReplayBuffer, {}),
    "rank": (PrioritizedReplayBuffer, {"variant": "rank"}),
}


def make(cls, capacity=30, seed=0, **kwargs):
    space = gym.spaces.Dict({"a": gym.spaces.Box(-9.0, 9.0, (2,)), "b": gym.spaces.Discrete(5)})
    return cls(capacity, space, gym.spaces.Discrete(3), num_envs=2, seed=seed, **kwargs)


def add(replay, steps, seed):
    rng = np.random.default_rng(seed)

    def observe():
        return {"a": rng.normal(size=(2, 2)).clip(-9, 9), "b": rng.integers(5, size=2)}

    for step in range(steps):
        ends = np.array([step % 4 == 3, step % 5 == 4])
        action, reward, cut = rng.integers(3, size=2), rng.normal(size=2), ~ends & (step == 6)
        replay.add(observe(), action, reward, ends, cut, observe())


def draws(replay):
    if isinstance(replay, PrioritizedReplayBuffer):
        keys = replay.sample(8)[1]["key"]
        replay.update_priorities(keys, np.arange(8.0))
    add(replay, 3, seed=7)
    return replay.sample(16, n_step=2, gamma=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_another_buffer_goes_on_from_it(kind):
    cls, kwargs = KINDS[kind]
    replay = make(cls, **kwargs)
    add(replay, 21, seed=1)
    draws(replay)
    state = replay.get_state()
    other = make(cls, seed=5, **kwargs)
    add(other, 9, seed=2)
    other.set_state(state)
    expected = draws(replay)
    np.testing.assert_equal(draws(other), expected)
    np.testing.assert_equal(other.get_state(), replay.get_state())
    third = make(cls, **kwargs)
    third.set_state(state)  # neither buffer has written into it
    np.testing.assert_equal(draws(third), expected)


LARGE = {"capacity": 24_000, "cls": PrioritizedReplayBuffer, "variant": "rank"}
SIZES = {
    **{name: {"cls": cls, **kwargs} for name, (cls, kwargs) in KINDS.items()},
    "rank above 10,000": LARGE,
}


def filled(kind):
    """Returns a buffer with rows that have no priorities yet, and changed ones."""
    replay = make(**SIZES[kind])
    for seed in range(10 if replay.capacity > 1_000 else 1):
        add(replay, 1_010 if replay.capacity > 1_000 else 21, seed)
    live(replay, 3)
    add(replay, 2, seed=1)
    return replay


def live(replay, rounds, between=lambda: None):
    """Adds, draws and feeds back; returns all draws."""
    batches = []
    for number in range(rounds):
        between()
        add(replay, 3, seed=number)
        between()
        batches.append(replay.sample(16, n_step=2, gamma=0.5))
        if isinstance(replay, PrioritizedReplayBuffer):
            between()
            replay.update_priorities(batches[-1][1]["key"], np.arange(16.0) * number)
    return batches


@pytest.mark.parametrize("kind", SIZES)
def test_two_buffers_draw_alike_for_ever(kind):
    replay, other = filled(kind), make(**SIZES[kind])
    add(other, 9, seed=2)
    other.set_state(replay.get_state())
    np.testing.assert_equal(other.get_state(), replay.get_state())
    np.testing.assert_equal(live(other, 60), live(replay, 60))
    np.testing.assert_equal(other.get_state(), replay.get_state())


@pytest.mark.parametrize("kind", SIZES)
def test_taking_a_state_changes_no_draw(kind):
    replay, twin = filled(kind), filled(kind)
    np.testing.assert_equal(live(twin, 60, lambda: twin.get_state(rows=False)), live(replay, 60))
    np.testing.assert_equal(twin.get_state(), replay.get_state())


@pytest.mark.parametrize("kind", SIZES)
def test_the_rows_can_be_carried_apart(kind):
    replay, other = filled(kind), make(**SIZES[kind])
    state = replay.get_state(rows=False)
    assert "rows" not in state
    np.testing.assert_equal(replay.get_state()["rows"], replay.row_arrays())
    for name, array in replay.row_arrays().items():
        other.row_arrays()[name][:] = array
    other.set_state(state)
    np.testing.assert_equal(live(other, 5), live(replay, 5))


def test_all_but_the_arrays_is_json():
    replay = filled("rank")
    state = replay.get_state(rows=False)
    arrays = {n: a for n, a in state["priorities"].items() if isinstance(a, np.ndarray)}
    numbers = {n: a for n, a in state["priorities"].items() if n not in arrays}
    assert {array.shape for array in arrays.values()} == {(32,)}
    state = json.loads(json.dumps({**state, "priorities": numbers}))
    state["priorities"].update(arrays)
    replay.set_state(state)


def test_warnings_about_feedback_go_on():
    replay, other = filled("rank"), filled("rank")
    replay.expect_feedback(99)
    other.set_state(replay.get_state())
    other.expect_feedback(1)
    with pytest.warns(UserWarning, match="100 batches were drawn"):
        other.expect_feedback(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_takes_the_state(kind, tmp_path):
    cls, kwargs = KINDS[kind]
    replay = filled(kind)
    mapped = make(cls, storage="memmap", directory=tmp_path / "m", **kwargs)
    add(mapped, 90, seed=3)
    mapped.flush()
    mapped.set_state(replay.get_state())
    loaded = cls.load(tmp_path / "m")
    np.testing.assert_equal(loaded.get_state()["rows"], replay.get_state()["rows"])
    np.testing.assert_equal(live(mapped, 9), live(replay, 9))
    cls.load(tmp_path / "m")


def test_states_of_other_buffers_are_refused():
    replay, prioritized = make(ReplayBuffer), make(PrioritizedReplayBuffer)
    add(prioritized, 9, seed=1)
    before = prioritized.get_state()
    for state in (replay.get_state(), make(PrioritizedReplayBuffer, capacity=40).get_state()):
        with pytest.raises(ValueError, match="`state` must be from a buffer of the same class"):
            prioritized.set_state(state)
    with pytest.raises(ValueError, match="`state` must be from a buffer of the same class"):
        replay.set_state(before)
    np.testing.assert_equal(prioritized.get_state(), before)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["heads"], [5]),
        (["heads"], [5, -1]),
        (["runs"], [True, 3]),
        (["seen_heads"], [99, 0]),
        (["updates"], -1),
        (["largest_priority"], np.nan),
        (["generator"], {"bit_generator": "PCG64"}),
        (["generator", "state"], {"state": -1, "inc": 0}),
        (["batches_without_feedback"], "3"),
        (["batches_without_feedback"], -1),
        (["rows"], {}),
        (["rows", "action"], np.zeros(32)),
        (["rows", "action"], np.zeros(31, np.int32)),
        (["priorities"], {}),
        (["priorities", "priority"], np.zeros(32, np.float32)),
        (["priorities", "priority"], np.full(32, -1.0)),
        (["priorities", "rank_value"], np.full(32, np.nan)),
        (["priorities", "ranked_priority"], np.arange(32.0)),
        (["priorities", "num_changed"], -1),
        (["more"], 1),
    ],
    ids=str,
)
def test_damaged_states_are_refused(path, value):
    replay = filled("rank")
    before = replay.get_state()
    state = copy.deepcopy(before)
    *parents, last = path
    inner = state
    for name in parents:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(ValueError, match="`state` must be from a buffer") as error:
        replay.set_state(state)
    assert "\n" not in str(error.value)
    np.testing.assert_equal(replay.get_state(), before)


@pytest.mark.parametrize("state", [None, {}, [1]], ids=str)
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match="`state` must be from a buffer"):
        filled("uniform").set_state(state)
