"""A write that is interrupted anywhere leaves no damaged transition: by a kill, or by Ctrl-C."""

import itertools
import os
import shutil
import subprocess
import sys

import numbered_steps
import numpy as np
import pytest
from numbered_steps import (
    NUM_ACTIONS,
    ROWS,
    VARIANTS,
    Numbered,
    drawn,
    is_cut,
    is_terminated,
    is_truncated,
    make,
    wrong,
)

import keras_dqn
from keras_dqn.replay.block_recorder import BlockRecorder

FOLDER = os.path.join(os.path.dirname(keras_dqn.__file__), "")
SOME = [
    "uniform, E=1, frame_stack=None",
    "proportional, E=1, frame_stack=3",
    "rank, E=2, frame_stack=None",
]


def at_each_instruction(function, see):
    """Calls a function; calls `see()` before each bytecode instruction of the package in it."""

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        frame.f_trace_opcodes = True
        see()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)


def torn(before, after):
    """Returns a copy of `before` with the first half of the changes that `after` has."""
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    middle = changed[len(changed) // 2]
    return after[:middle] + before[middle:]


def states_during(function, directory):
    """Returns the different contents of a directory's files while a function runs."""

    def contents():
        return {file.name: file.read_bytes() for file in directory.iterdir()}

    states = [contents()]

    def see():
        if (now := contents()) != (last := states[-1]):
            for name in now.keys() & last.keys():
                if now[name] != last[name] and name.startswith("observation"):
                    states.append({**last, name: torn(last[name], now[name])})
            states.append(now)

    at_each_instruction(function, see)
    see()
    return states


def check_loaded(variant, directory, kept, possible, n_steps):
    cls, _, num_envs, frame_stack = VARIANTS[variant]
    replay = cls.load(directory)
    assert not wrong(replay, n_steps)
    assert kept <= drawn(replay) <= possible
    for name, array in replay.arrays().items():
        assert not name.startswith("priority") or np.count_nonzero(array) == len(replay)
    again = cls.load(directory)  # what was removed stays so
    assert len(again) == len(replay)
    assert drawn(again) == drawn(replay)
    numbered = Numbered(again, start=10**6)
    numbered.add()
    assert not wrong(again, n_steps=(1,))  # this cut the episode that ran
    for _ in range(ROWS):
        numbered.add()
        again.sample(2)
    assert not wrong(again, n_steps)
    assert len(again) > num_envs * (ROWS / 2 - 2 * (frame_stack or 1))


def without_oldest(replay, numbers, rows=0):
    """Returns the numbers that must stay: a kill costs rows of an `add` and stacks on them.

    Of a block, it costs twice `rows`: some leave the ring, and as many can be damaged.
    """
    rows = 2 * rows + 3 * (replay.frame_stack or 1) + 3
    of_each = [sorted(n for n in numbers if n % replay.num_envs == e) for e in range(2)]
    return {number for numbers in of_each for number in numbers[rows:]}


def writes_most_next(numbered):
    """Whether the step after the next one begins and ends an episode, after one that was cut."""
    num_envs = numbered.num_envs
    numbers = [tick * num_envs + e for e, tick in enumerate(numbered.ticks)]
    return any(
        is_cut(n) and (is_terminated(n + 2 * num_envs) or is_truncated(n + 2 * num_envs))
        for n in numbers
    )


def check_kills(variant, adds, tmp_path):
    directory = tmp_path / "replay"
    replay = make(variant, storage="memmap", directory=directory)
    numbered = Numbered(replay)
    for count in itertools.count():
        if count == adds - 5:
            replay.sample(1)
            replay.flush()
        if count >= adds and (writes_most_next(numbered) or adds < ROWS):
            break
        numbered.add()
    number_of_states = 0
    for _ in range(6):
        before = drawn(replay)
        newest = {tick * replay.num_envs + e for e, tick in enumerate(numbered.ticks)}
        states = states_during(numbered.add, directory)
        check_states(variant, states, without_oldest(replay, before), before | newest, tmp_path)
        number_of_states += len(states)
    assert number_of_states > 50


def check_states(variant, states, kept, possible, tmp_path, n_steps=(1, 3)):
    for state in states:
        copy = tmp_path / "copy"
        copy.mkdir()
        for name, content in state.items():
            (copy / name).write_bytes(content)
        check_loaded(variant, copy, kept, possible, n_steps)
        shutil.rmtree(copy)


@pytest.mark.parametrize("variant", SOME)
def test_a_kill_at_any_instruction(variant, tmp_path):
    check_kills(variant, 3 * ROWS, tmp_path)


@pytest.mark.hard
@pytest.mark.parametrize("adds", [20, 3 * ROWS], ids=["nearly full", "full"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_kill_at_any_instruction_of_all_variants(variant, adds, tmp_path):
    check_kills(variant, adds, tmp_path)


@pytest.mark.hard
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("variant", VARIANTS)
def test_sixty_kills(variant):
    command = [sys.executable, numbered_steps.__file__, variant, "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr


# Blocks

BLOCK_ROWS = 100  # of each environment: more than two parts of 64 rows


def make_recording(variant, **storage):
    """Returns a buffer of a variant, and steps for a recorder that fits."""
    replay = make(variant, rows=BLOCK_ROWS, **storage)
    spaces = replay.observation_space, replay.action_space
    sizes = {"num_envs": replay.num_envs, "frame_stack": replay.frame_stack, "max_steps": 90}
    return replay, Numbered(BlockRecorder(*spaces, **sizes))


def taken(numbered, count):
    """Takes steps; returns their block and their numbers."""
    numbers = [number for _ in range(count) for number in numbered.add()]
    return numbered.replay.take_block(lambda _: np.zeros((64, NUM_ACTIONS))), set(numbers)


def check_kills_in_blocks(variant, lengths, tmp_path):
    directory = tmp_path / "replay"
    replay, numbered = make_recording(variant, storage="memmap", directory=directory)
    for _ in range(5):
        replay.add_block(taken(numbered, 45)[0])
    replay.sample(1)
    replay.flush()
    number_of_states = 0
    for i, count in enumerate(lengths):
        if i % 3 == 2:  # the worker is lost: the episodes are cut
            numbered = make_recording(variant)[1]
            numbered.ticks = [1_000 * i] * replay.num_envs
            numbered.first = list(numbered.ticks)
        block, newest = taken(numbered, count)
        before = drawn(replay)
        states = states_during(lambda block=block: replay.add_block(block), directory)
        kept = without_oldest(replay, before, rows=int(block.counts.max()))
        check_states(variant, states, kept, before | newest, tmp_path, n_steps=(1,))
        number_of_states += len(states)
    before = drawn(replay)
    states = states_during(lambda: replay.end_episodes(list(range(replay.num_envs))), directory)
    check_states(variant, states, without_oldest(replay, before), before, tmp_path, n_steps=(1,))
    assert number_of_states > 8 * len(lengths)


@pytest.mark.parametrize("variant", SOME)
def test_a_kill_at_any_instruction_of_a_block(variant, tmp_path):
    check_kills_in_blocks(variant, [9, 3, 5], tmp_path)


@pytest.mark.hard
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_kill_at_any_instruction_of_blocks_of_all_variants(variant, tmp_path):
    check_kills_in_blocks(variant, [1, 12, 7, 90, 30], tmp_path)


# Ctrl-C


def interrupt_at(instruction, function):
    """Calls a function with a Ctrl-C before an instruction; returns whether it came so far."""
    counter = itertools.count()

    def see():
        if next(counter) == instruction:
            raise KeyboardInterrupt

    try:
        at_each_instruction(function, see)
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("storage", ["memory", "memmap"])
@pytest.mark.parametrize("variant", SOME)
def test_ctrl_c_at_many_instructions(variant, storage, tmp_path):
    kwargs = {} if storage == "memory" else {"storage": storage, "directory": tmp_path / "m"}
    replay = make(variant, **kwargs)
    numbered = Numbered(replay)
    for _ in range(2 * ROWS):
        numbered.add()
    interrupted = True
    instruction = 0
    while interrupted:
        replay.sample(1)
        before, ticks, first = drawn(replay), numbered.ticks.copy(), numbered.first.copy()
        interrupted = interrupt_at(instruction, numbered.add)
        if drawn(replay) <= before:  # the step is not stored, so it is taken again
            numbered.ticks, numbered.first = ticks, first
        instruction += 7  # and another kind of step each time
        assert not wrong(replay)
        assert without_oldest(replay, before) <= drawn(replay)
        for _ in range(5):
            numbered.add()
        if storage == "memmap" and instruction % 10 == 0:
            assert drawn(type(replay).load(tmp_path / "m")) == drawn(replay)
    assert instruction > 200


@pytest.mark.parametrize("storage", ["memory", "memmap"])
@pytest.mark.parametrize("variant", SOME)
def test_ctrl_c_at_many_instructions_of_a_block(variant, storage, tmp_path):
    kwargs = {} if storage == "memory" else {"storage": storage, "directory": tmp_path / "m"}
    replay, numbered = make_recording(variant, **kwargs)
    for _ in range(5):
        replay.add_block(taken(numbered, 45)[0])
    rng = np.random.default_rng(0)
    interrupted, instruction = True, 0
    while interrupted:
        if instruction % 3 == 0:
            replay.end_episodes([0])
        before = drawn(replay)
        count = int(rng.choice([1, 4, 20, 90]))
        block, newest = taken(numbered, count)
        interrupted = interrupt_at(instruction, lambda block=block: replay.add_block(block))
        instruction += 13
        assert not wrong(replay, n_steps=(1,))  # a block may be lost: that cuts its episode
        rows = int(block.counts.max())
        assert without_oldest(replay, before, rows) <= drawn(replay) <= before | newest
        if storage == "memmap" and instruction % 10 == 0:
            assert drawn(type(replay).load(tmp_path / "m")) == drawn(replay)
    assert instruction > 200


@pytest.mark.parametrize("variant", SOME)
def test_ctrl_c_while_episodes_are_ended(variant):
    replay, numbered = make_recording(variant)
    envs = list(range(replay.num_envs))
    for instruction in itertools.count(0, 3):
        replay.add_block(taken(numbered, 40)[0])
        before = drawn(replay)
        interrupted = interrupt_at(instruction, lambda: replay.end_episodes(envs))
        assert not wrong(replay, n_steps=(1,))
        assert without_oldest(replay, before) <= drawn(replay) <= before
        if not interrupted:
            break
    assert instruction > 60
    assert replay.get_state()["runs"] == [False] * replay.num_envs
