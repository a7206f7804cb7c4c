"""Blocks of a `BlockRecorder`, added to a buffer, against `add` with the same steps."""

import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from envs import CountingEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_steps import VARIANTS, Numbered, drawn, make, wrong
from walks import (
    ACTIONS,
    SPACES,
    Walk,
    assert_draws_equal,
    assert_equal,
    buffer,
    ring,
)

from keras_dqn import Collector, Greedy, PrioritizedReplayBuffer, ReplayBuffer
from keras_dqn.replay.block_recorder import BlockRecorder
from keras_dqn.replay.protocols import Replay, TakesTransitions


def recorder(kind, num_envs, max_steps, **kwargs):
    space, frame_stack = SPACES[kind]
    kwargs |= {"num_envs": num_envs, "frame_stack": frame_stack, "max_steps": max_steps}
    return BlockRecorder(space, ACTIONS, **kwargs)


def add_steps(walk, count, *targets):
    for _ in range(count):
        step, where = walk.step()
        for target in targets:
            target.add(*step, where=where)


@pytest.mark.parametrize("num_rows", [3, 5, 12, 300])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("kind", SPACES)
def test_blocks_store_what_add_stores(kind, num_envs, num_rows):
    rng = np.random.default_rng(num_rows)
    walk = Walk(kind, num_envs, rng)
    ours, theirs = (buffer(kind, num_rows, num_envs) for _ in range(2))
    recorded = recorder(kind, num_envs, 100)
    counted = 0
    for _ in range(40):
        count = rng.choice([0, 1, 2, 5, 20, 100], p=[0.1, 0.3, 0.3, 0.2, 0.05, 0.05])
        add_steps(walk, count, recorded, theirs)
        counted += len(recorded)
        block = pickle.loads(pickle.dumps(recorded.take_block()))
        assert len(recorded) == 0
        counted -= block.num_transitions
        ours.add_block(block)
        for env in range(num_envs):
            assert ring(ours, env) == ring(theirs, env)
        assert len(ours) == len(theirs)
        assert_draws_equal(ours, theirs)
    assert counted == 0
    assert min(ours.get_state()["heads"]) > 100  # all but the largest have wrapped often


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(SPACES)),
    num_rows=st.integers(3, 30),
    order=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12), st.booleans()), max_size=30),
    seed=st.integers(0, 9),
)
def test_workers_send_in_any_order_and_are_replaced(kind, num_rows, order, seed):
    """Of two workers with 2 and 1 environments, a lost one takes its last steps with it."""
    rng = np.random.default_rng(seed)
    sizes, first = (2, 1), (0, 2)
    walks = [Walk(kind, n, rng) for n in sizes]
    recorders = [recorder(kind, n, 12) for n in sizes]
    alone = [buffer(kind, num_rows, n) for n in sizes]
    replay = buffer(kind, num_rows, 3)
    sent = 0
    for worker, count, is_lost in order:
        if is_lost:
            add_steps(walks[worker], count, recorders[worker])
            recorders[worker] = recorder(kind, sizes[worker], 12)
            if rng.random() < 0.5:
                replay.end_episodes([first[worker] + e for e in range(sizes[worker])])
                assert not any(replay.get_state()["runs"][first[worker] :][: sizes[worker]])
            for e in range(sizes[worker]):
                walks[worker].restart(e)
            continue
        add_steps(walks[worker], count, recorders[worker], alone[worker])
        block = recorders[worker].take_block()
        sent += block.num_transitions
        replay.add_block(block, first[worker])
    for target in (replay, *alone):  # one of them may have ended the last episodes already
        target.end_episodes(list(range(target.num_envs)))
    assert len(replay) == sum(map(len, alone))
    assert len(replay) <= sent
    if max(replay.get_state()["heads"]) <= num_rows:
        assert len(replay) == sent
    for worker, (start, size) in enumerate(zip(first, sizes, strict=True)):
        for e in range(size):
            assert ring(replay, start + e) == ring(alone[worker], e)


# Numbered steps: each stored transition shows whether it is one


def numbered(variant, max_steps=20, **kwargs):
    _, _, num_envs, frame_stack = VARIANTS[variant]
    spaces = make(variant).observation_space, make(variant).action_space
    sizes = {"num_envs": num_envs, "frame_stack": frame_stack, "max_steps": max_steps}
    return Numbered(BlockRecorder(*spaces, **sizes, **kwargs))


def take(worker, count):
    for _ in range(count):
        worker.add()
    return worker.replay.take_block()


@pytest.mark.parametrize("variant", VARIANTS)
def test_lost_blocks_and_closed_episodes_join_nothing(variant):
    rng = np.random.default_rng(0)
    replay, worker = make(variant), numbered(variant)
    for count in rng.integers(0, 9, 50).tolist():
        block = take(worker, count)
        if rng.random() < 0.2:
            continue
        if rng.random() < 0.2:
            replay.end_episodes([int(rng.integers(replay.num_envs))])
        replay.add_block(block)
        if len(replay):
            assert not wrong(replay, n_steps=(1,))


@pytest.mark.parametrize("frame_stack", [None, 3])
def test_an_episode_goes_on_after_it_was_closed(frame_stack):
    """Steps 0 to 4, closed, and 5, 6 (which terminates); 7 is its reset."""
    variant = f"uniform, E=1, frame_stack={frame_stack}"
    replay, worker = make(variant), numbered(variant)
    replay.add_block(take(worker, 5))
    replay.end_episodes([0])
    replay.end_episodes([0])  # nothing runs
    block = take(worker, 2)
    replay.add_block(block)
    # With stacks, steps 5 and 6 lack the two frames before the block.
    assert drawn(replay) == set(range(5 if frame_stack else 7))
    assert not wrong(replay, n_steps=(1,))
    _, transition, _ = replay.sample(500, n_step=9, gamma=1.0)
    # The sums of rewards up to the end: 4, 4 + 3, ..., 4 + 3 + 2 + 1 + 0, and 6, 6 + 5.
    assert set(transition["reward"].tolist()) == {4, 7, 9, 10} | (set() if frame_stack else {6, 11})


def test_the_block_of_a_new_recorder_never_joins():
    """Both workers are at the observation 2."""
    replay = buffer("float32", 20, 1)
    first, second = (recorder("float32", 1, 6) for _ in range(2))
    add_numbers(first, [1, 2], [0])
    add_numbers(second, [2, 3], [0])
    blocks = [one.take_block() for one in (first, second)]
    assert [block.continues.tolist() for block in blocks] == [[False], [False]]
    add_numbers(first, [2, 3], [0])
    third = first.take_block()
    assert third.continues.tolist() == [True]
    for block, joins in (
        (blocks[1], False),
        (third, True),
        (third._replace(continues=np.array([False])), False),
    ):
        replay = buffer("float32", 20, 1)
        replay.add_block(blocks[0])
        replay.add_block(block)
        assert [row["flags"] for row in ring(replay, 0)[2][:-1]] == ([0, 0] if joins else [2, 4, 0])


# The recorder


def steps_until_it_is_full(recorded, walk, ends):
    for taken in itertools.count():
        before = walk.observations()
        walk.ticks[0] += 1
        try:
            recorded.add(before, [5], [0.0], [ends], [False], walk.observations())
        except RuntimeError as error:
            return taken, str(error)
        walk.restart(0)  # if it did not end, it is cut


def test_a_recorder_is_full_before_rows_are_lost():
    for kind, ends in itertools.product(SPACES, (False, True)):
        walk, recorded = Walk(kind, 1, np.random.default_rng(0)), recorder(kind, 1, 7)
        for block in range(5):
            step, _ = walk.step()
            recorded.add(*step[:3], [False], [False], step[5])  # it runs, and is cut next
            recorded.take_block()
            walk.restart(0)
            taken, error = steps_until_it_is_full(recorded, walk, ends)
            assert "`add` was called for more than `max_steps` steps of environment 0" in error
            assert taken >= 7
            assert len(recorded) == taken
            assert recorded.take_block().num_transitions == taken, block


def test_a_recorder_refuses_steps_and_sizes():
    recorded = recorder("float32", 1, 7)
    nan = np.full((1, 2), np.nan)
    with pytest.raises(ValueError, match="`observation` must be finite"):
        recorded.add(nan, [5], [0.0], [False], [False], np.zeros((1, 2)))
    assert recorded.take_block().counts.tolist() == [0]
    with pytest.raises(ValueError, match="`gamma` must be in"):
        recorded.take_block(gamma=2.0)
    for name in ("max_steps", "n_step", "num_envs"):
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1"):
            BlockRecorder(SPACES["float32"][0], ACTIONS, **{"max_steps": 3, name: 0})
    with pytest.raises(ValueError, match="`frame_stack` must be the size of the first axis"):
        BlockRecorder(SPACES["float32"][0], ACTIONS, max_steps=3, frame_stack=4)


def test_a_collector_fills_a_recorder():
    env = CountingEnv(lengths=(3, 5))
    recorded = BlockRecorder(env.observation_space, env.action_space, max_steps=10)
    assert isinstance(recorded, TakesTransitions)
    assert not isinstance(recorded, Replay)
    replay = ReplayBuffer.from_env(env, 100, num_envs=2, seed=0)
    collector = Collector(env, recorded, exploration=Greedy(), seed=0)
    for _ in range(4):
        collector.warm_up(7)
        replay.add_block(recorded.take_block(), first_env=1)
    assert len(replay) == collector.env_steps == len(env.rows) == 28
    observation, transition, _ = replay.sample(1_000)
    found = set(zip(observation[:, 0], transition["next_observation"][:, 0], strict=True))
    assert found == {(row.observation, row.next_observation) for row in env.rows}


def test_the_workers_side_imports_little():
    code = (
        "import importlib.util, sys, types\n"
        "package = types.ModuleType('keras_dqn')\n"
        "found = importlib.util.find_spec('keras_dqn')\n"
        "package.__path__ = found.submodule_search_locations\n"
        "sys.modules['keras_dqn'] = package\n"
        "import keras_dqn.replay.block_recorder\n"
        "print({'keras', 'tensorflow', 'h5py', 'keras_dqn.replay.persistence'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "set()\n", done.stderr


# Initial priorities


def values(observation):
    """Q(s) = [s, 10 s, 0] for the first entry s of an observation."""
    assert observation.shape == (64, 2)
    return observation[:, :1] * np.array([1.0, 10.0, 0.0])


def add_numbers(recorded, numbers, actions, end=None):
    """Adds the steps between consecutive numbers, with the reward 100."""
    for i, action in enumerate(actions):
        last = i == len(actions) - 1
        before, after = ([[float(n)] * 2] for n in numbers[i : i + 2])
        ends = [last and end == name for name in ("terminated", "truncated")]
        recorded.add(before, [action + 5], [100.0], *[[x] for x in ends], after)


def test_initial_td_errors_by_hand():
    """gamma = 0.5 and n = 2; max_a Q(s) = 10 s for s > 0."""
    recorded = recorder("float32", 1, 6, n_step=2)
    add_numbers(recorded, [1, 2, 3], [0, 1])
    env, before_head, td_error = recorded.take_block(values, 0.5).rated
    # 100 + 50 + 0.25 * 10 * 3 - 1
    assert (env.tolist(), before_head.tolist(), td_error.tolist()) == ([0], [2], [156.5])
    assert recorded.take_block(values, 0.5).rated[0].tolist() == []
    add_numbers(recorded, [3, 4, 5], [2, 1], "terminated")
    _, before_head, td_error = recorded.take_block(values, 0.5).rated
    # Rows are 2, 3, 4 and the final observation 5. The one of 2 was in the block before.
    assert before_head.tolist() == [4, 3, 2]
    # 2: 150 + 0.25 * 10 * 4 - 20; 3: 150 - 0; 4: 100 - 40.
    assert td_error.tolist() == [140.0, 150.0, 60.0]


def test_windows_wait_for_values_while_their_rows_are_there():
    recorded = recorder("float32", 1, 6, n_step=2)
    for first in range(1, 9):
        add_numbers(recorded, [first, first + 1], [2])
        recorded.take_block()
    rows = recorded.take_block(values).rated[1].tolist()
    assert rows == list(range(8, 1, -1))
    for first in range(9, 90):
        add_numbers(recorded, [first, first + 1], [2])
        recorded.take_block()
    rows = recorded.take_block(values).rated[1].tolist()
    assert rows[-1] == 2
    assert 6 <= len(rows) < 80
    assert rows == list(range(rows[0], 1, -1))


def test_values_of_the_wrong_shape_are_refused_and_nothing_is_taken():
    recorded = recorder("float32", 1, 6)
    add_numbers(recorded, [1, 2], [0])
    with pytest.raises(ValueError, match="one value for each of the 3 actions"):
        recorded.take_block(lambda observation: np.zeros((64, 2)))
    block = recorded.take_block(values)
    assert (block.num_transitions, len(block.rated[0])) == (1, 1)


def batch_of(columns, k):
    if isinstance(columns, dict):
        return {name: batch_of(column, k) for name, column in columns.items()}
    return columns[k]


@pytest.mark.parametrize("kind", ["float32", "Dict", "3 frames"])
def test_each_complete_window_is_rated_once_as_a_draw_would_be(kind):
    """Ends, cuts and stacks of 2 environments, against the batches of a buffer that has all."""

    def of(observation):
        """Values from the newest frame: action a of number s has (7 s + 3 a) % 11."""
        if kind == "Dict":
            number = observation["number"]
        else:
            number = observation.reshape(64, -1)[:, -1]
        return (7.0 * number.astype(np.float64)[:, None] + 3.0 * np.arange(3)) % 11

    rng = np.random.default_rng(4)
    walk, recorded = Walk(kind, 2, rng), recorder(kind, 2, 8, n_step=3)
    replay = buffer(kind, 2_000, 2, PrioritizedReplayBuffer, alpha=1.0, epsilon=1e-3)
    rated = 0
    for count in rng.integers(0, 9, 60).tolist():
        add_steps(walk, count, recorded)
        block = recorded.take_block(of, 0.9)
        rated += len(block.rated[0])
        replay.add_block(block)
    observation, transition, _ = replay.sample(64, n_step=3, gamma=0.9, num_batches=100)
    priority = replay.arrays()["priority_value"]
    for k in range(100):
        now, one = batch_of(observation, k), batch_of(transition, k)
        best = one["reward"] + one["discount"] * of(one["next_observation"]).max(axis=1)
        td_error = best - of(now)[np.arange(64), one["action"]]
        row, env = np.divmod(one["key"], 2)
        found = priority[env * (len(priority) // 2) + row % (len(priority) // 2)]
        np.testing.assert_allclose(found, np.abs(td_error) + 1e-3, rtol=1e-5, atol=1e-5)
    waiting = sum(replay.get_state()["runs"]) * 2  # at most
    assert len(replay) - waiting <= rated <= len(replay)


def test_rated_rows_get_their_priorities_and_others_the_largest():
    replay = buffer("float32", 4, 2, PrioritizedReplayBuffer, alpha=1.0, beta=1.0, epsilon=0.5)
    recorded = recorder("float32", 1, 6, n_step=2)
    replay.expect_feedback(7)
    before = replay.get_state()["batches_without_feedback"], replay.updates
    add_numbers(recorded, [1, 2, 3], [0, 1])
    replay.add_block(recorded.take_block(values, 0.5), first_env=1)
    assert priorities(replay) == [0, 0, 0, 0, 0, 157.0, 1, 0, 0, 0]
    add_numbers(recorded, [3, 4, 5], [2, 1], "terminated")
    replay.add_block(recorded.take_block(values, 0.5), first_env=1)
    # The row of 1 has left the ring; that of 5, in the slot after 4, is a boundary row.
    assert priorities(replay) == [0, 0, 0, 0, 0, 0, 140.5, 150.5, 60.5, 0]
    assert (replay.get_state()["batches_without_feedback"], replay.updates) == before
    add_numbers(recorded, [6, 7], [0])
    replay.add_block(recorded.take_block(), first_env=1)  # the largest so far was 157
    assert priorities(replay) == [0, 0, 0, 0, 0, 157.0, 0, 150.5, 60.5, 0]


def priorities(replay):
    return replay.arrays()["priority_value"].tolist()


def test_td_errors_of_rows_before_a_lost_block_are_not_taken():
    replay = buffer("float32", 50, 1, PrioritizedReplayBuffer, alpha=1.0, epsilon=0.5)
    recorded = recorder("float32", 1, 6, n_step=3)
    add_numbers(recorded, [1, 2, 3], [0, 1])
    replay.add_block(recorded.take_block(values, 0.5))
    replay.end_episodes([0])
    add_numbers(recorded, [3, 4, 5], [2, 2])
    block = recorded.take_block(values, 0.5)
    assert block.rated[1].tolist() == [4, 3]  # 1 and 2, over 3
    replay.add_block(block)
    assert priorities(replay)[:6] == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]  # 1, 2, the end 3, 3, 4


@pytest.mark.parametrize("kind", ["float32", "3 frames"])
def test_no_window_is_rated_twice(kind):
    rng = np.random.default_rng(2)
    walk, recorded = Walk(kind, 2, rng), recorder(kind, 2, 8, n_step=3)
    heads, found = np.zeros(2, np.int64), []
    for count in rng.integers(0, 9, 200).tolist():
        add_steps(walk, count, recorded)
        block = recorded.take_block((lambda _: np.zeros((64, 3))) if rng.random() < 0.3 else None)
        heads += block.counts
        if block.rated is not None:
            env, before_head, _ = block.rated
            found += zip(env.tolist(), (heads[env] - before_head).tolist(), strict=True)
    assert len(found) == len(set(found)) > 400


# What is refused

BLOCK_CHANGES = {
    "counts": ({"counts": np.array([2.0])}, r"counts` must be int64 \(1,\)"),
    "negative": ({"counts": np.array([-1])}, "counts` must be 0 or more rows"),
    "rows": ({"counts": np.array([1])}, r"observations\[0\]` must be float32 \(2, 2\). Rec"),
    "leaves": ({"observations": []}, "observations` must be 1 arrays, one .* Received: 0"),
    "dtype": ({"rewards": np.zeros(3)}, r"rewards` must be float32 \(3,\). Received: float64 "),
    "list": ({"actions": [0, 0, 0]}, r"actions` must be int32 \(3,\). Received: list \(3,\)"),
    "frames": ({"observations": [np.zeros((3, 3), np.float32)]}, r"observations\[0\]` must be f"),
    "action": ({"actions": np.array([0, 3, 0], np.int32)}, r"actions` must be in \[0, 3\)"),
    "reward": ({"rewards": np.array([0, np.nan, 0], np.float32)}, "rewards` must be finite"),
    "flags": ({"flags": np.array([4, 8, 0], np.uint8)}, "flags` must be the flags of rows"),
    "runs": ({"runs": np.array([False])}, r"runs` must be \[True\] for its flags"),
    "continues": ({"continues": np.array([1])}, r"continues` must be bool \(1,\)"),
    "count": ({"num_transitions": 3}, "num_transitions` must be 2 for its flags. Received: 3"),
    "rated env": ({"rated": ([1], [1], [1.0])}, "rated` must be of rows of the block's env"),
    "rated row": ({"rated": ([0], [0], [1.0])}, "rated` must be of rows of the block's env"),
    "rated nan": ({"rated": ([0], [1], [np.nan])}, r"rated\[2\]` must be finite"),
    "rated shape": ({"rated": ([0], [1], [1.0, 2.0])}, r"rated\[2\]` must be float \(1,\)"),
}


@pytest.mark.parametrize(("changes", "message"), BLOCK_CHANGES.values(), ids=BLOCK_CHANGES)
def test_wrong_blocks_are_refused_and_change_nothing(changes, message):
    replay, recorded = buffer("float32", 10, 2), recorder("float32", 1, 6)
    add_numbers(recorded, [1, 2, 3], [0, 1])
    block = recorded.take_block(values)
    before = replay.get_state()
    if "rated" in changes:
        changes = {"rated": tuple(np.array(column) for column in changes["rated"])}
    with pytest.raises(ValueError, match=f"`block.{message}") as info:
        replay.add_block(block._replace(**changes))
    assert "\n" not in str(info.value)
    assert_equal(replay.get_state()["rows"], before["rows"])
    assert replay.get_state()["heads"] == [0, 0]
    replay.add_block(block)
    assert len(replay) == 2


def test_wrong_environments_are_refused():
    replay, recorded = buffer("float32", 10, 2), recorder("float32", 2, 6)
    block = recorded.take_block()
    with pytest.raises(ValueError, match="`first_env` must leave room for all environments of"):
        replay.add_block(block, first_env=1)
    with pytest.raises(ValueError, match="`first_env` must be at least 0"):
        replay.add_block(block, first_env=-1)
    with pytest.raises(TypeError, match="`block` must be a Block, as `BlockRecorder"):
        replay.add_block(tuple(block))
    for envs, kind, message in (
        (0, TypeError, "`envs` must be a list of integers"),
        ([0.5], ValueError, "`envs` must be an integer"),
        ([0, 2], ValueError, r"`envs` must be in \[0, 2\)"),
        ([-1], ValueError, "`envs` must be at least 0"),
    ):
        with pytest.raises(kind, match=message):
            replay.end_episodes(envs)


def test_files_hold_blocks_and_closed_episodes(tmp_path):
    rng = np.random.default_rng(1)
    walk, recorded = Walk("Dict", 2, rng), recorder("Dict", 2, 20)
    files = {"storage": "memmap", "directory": tmp_path / "replay"}
    replay = buffer("Dict", 16, 2, PrioritizedReplayBuffer, beta=0.0, **files)
    for count in (7, 0, 20, 11):
        add_steps(walk, count, recorded)
        replay.add_block(recorded.take_block())
        loaded = PrioritizedReplayBuffer.load(tmp_path / "replay")
        assert [ring(loaded, e) for e in range(2)] == [ring(replay, e) for e in range(2)]
        assert len(loaded) == len(replay)
    replay.end_episodes([0, 1])
    loaded = PrioritizedReplayBuffer.load(tmp_path / "replay")
    assert loaded.get_state()["runs"] == [False, False]
    assert [ring(loaded, e) for e in range(2)] == [ring(replay, e) for e in range(2)]
