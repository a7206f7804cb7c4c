"""Stacked frames against a slow reference that keeps every frame of every episode."""

import keras
import numpy as np
import pytest
from envs import CountingEnv, DiscreteCountingEnv
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation

from keras_dqn import (
    DQN,
    ActionMaskObservation,
    Collector,
    CollectTransitions,
    EpsilonGreedy,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    SoftTargetUpdate,
)

GAMMA = 0.5  # so that float32 sums are exact
BUFFERS = [ReplayBuffer, PrioritizedReplayBuffer]
LENGTHS, ENDS = (7, 1, 3, 2), ("terminated", "truncated", "truncated")


def frame(number):
    """A frame whose four bytes are the number's."""
    return np.array([number], np.int32).view(np.uint8).reshape(2, 2)


class FrameEnv(CountingEnv):
    """Observes the counter as a frame."""

    def __init__(self, lengths=LENGTHS, ends=ENDS, first=1):  # zero is for padding
        super().__init__(lengths, ends, first)
        self.observation_space = Box(0, 255, (2, 2), np.uint8)

    def observe(self):
        return frame(self.counter)


PADDING = {  # padding_type of the wrapper, and the number that frames are padded with
    "reset": ("reset", None),
    "zero": ("zero", 0),
    "custom": (frame(77_777), 77_777),
}


def expected(rows, num_rows, stack_size, padding, n_step):
    """Returns what can be drawn of one environment, as the set of what `drawn` gives."""
    ring, stacks, frames = [], [], []  # the ring's rows: a transition's number, or None
    for i, row in enumerate(rows):
        if not frames or frames[-1] != row.observation:
            first = row.observation if padding is None else padding
            was_cut = i > 0 and not (rows[i - 1].terminated or rows[i - 1].truncated)
            frames = [first] * (stack_size - 1) + [row.observation]
            ring += [None] * (was_cut + stack_size - 1)
        before = tuple(frames[-stack_size:])
        frames.append(row.next_observation)
        stacks.append((before, tuple(frames[-stack_size:])))
        ring += [i, None] if row.terminated or row.truncated else [i]
    lost = len(ring) - num_rows
    transitions = set()
    for start in ring if lost <= 0 else ring[lost + stack_size - 1 :]:
        window = None if start is None else window_of(rows, start, n_step)
        if window is not None:
            last, reward, discount = window
            before, after = stacks[start][0], stacks[last][1]
            transitions.add((before, rows[start].action, reward, discount, after))
    return transitions


def window_of(rows, start, n_step):
    """Returns the last transition's number, the sum of rewards and the discount, or None."""
    reward = 0.0
    for last in range(start, len(rows)):
        row, m = rows[last], last - start + 1
        reward += GAMMA ** (m - 1) * row.reward
        goes_on = last + 1 == len(rows) or rows[last + 1].observation == row.next_observation
        if m == n_step or row.terminated or row.truncated or not goes_on:
            return last, reward, 0.0 if row.terminated else GAMMA**m
    return None


def drawn(replay, n_step):
    """Returns the set of all transitions, by drawing far more than there are."""
    observation, transition, _ = replay.sample(1_000, gamma=GAMMA, n_step=n_step)
    columns = [transition[name].tolist() for name in ("action", "reward", "discount")]
    before, after = counters(observation), counters(transition["next_observation"])
    return set(zip(before, *columns, after, strict=True))


def counters(stacks):
    """Returns the numbers of the frames of stacks `[B, k, ...]`, as B tuples."""
    if stacks.dtype == np.uint8:
        stacks = stacks.reshape(*stacks.shape[:2], 4).view(np.int32)
    return [tuple(stack) for stack in stacks.reshape(len(stacks), -1).tolist()]


def assert_draws(replay, transitions, n_step):
    if transitions:
        assert drawn(replay, n_step) == transitions
    else:
        with pytest.raises(RuntimeError, match=r"buffer is empty|no complete window"):
            replay.sample(1, n_step=n_step)


@pytest.mark.parametrize("capacity", [60, 400], ids=["wrapped", "roomy"])
@pytest.mark.parametrize(("padding_type", "padding"), PADDING.values(), ids=PADDING.keys())
@pytest.mark.parametrize("mode", [None, *AutoresetMode], ids=lambda mode: mode and mode.value)
def test_collected_stacks_are_those_of_the_wrapper(mode, padding_type, padding, capacity):
    def maker(e):
        env = FrameEnv(LENGTHS[e:], ENDS[e:], first=1_000 * e + 1)
        return lambda: FrameStackObservation(env, 4, padding_type=padding_type)

    num_envs = 1 if mode is None else 3
    makers = [maker(e) for e in range(num_envs)]
    env = makers[0]() if mode is None else SyncVectorEnv(makers, autoreset_mode=mode)
    replay = ReplayBuffer.from_env(env, capacity, frame_stack=4, seed=0)
    CollectTransitions(
        env, replay, exploration=EpsilonGreedy(1.0), warmup_steps=60, seed=0
    ).warm_up()
    for n_step in (1, 3):
        transitions = set()
        for single in [env] if mode is None else env.envs:
            rows = single.unwrapped.rows
            transitions |= expected(rows, capacity // num_envs, 4, padding, n_step)
        assert drawn(replay, n_step) == transitions


def play(env, num_steps, resets=0.15):
    """Yields the arguments of `add`, with resets in the middle of episodes."""
    rng = np.random.default_rng(0)
    observation, _ = env.reset()
    for _ in range(num_steps):
        action = int(rng.integers(3))
        following, reward, terminated, truncated, _ = env.step(action)
        yield observation, action, reward, terminated, truncated, following
        observation = following
        if terminated or truncated or rng.random() < resets:
            observation, _ = env.reset()


@pytest.mark.parametrize("cls", BUFFERS)
@pytest.mark.parametrize(
    ("stack_size", "capacity"), [(4, 4), (4, 5), (4, 13), (4, 40), (2, 2), (2, 9), (1, 1), (1, 8)]
)
def test_each_step_of_a_small_ring(stack_size, capacity, cls):
    env = FrameStackObservation(FrameEnv(), stack_size, padding_type="zero")
    replay = cls.from_env(env, capacity, frame_stack=stack_size, seed=0)
    for step in play(env, 60):
        replay.add(*step)
        for n_step in (1, 3):
            rows = env.unwrapped.rows
            assert_draws(replay, expected(rows, capacity, stack_size, 0, n_step), n_step)


@pytest.mark.parametrize("cls", [CountingEnv, DiscreteCountingEnv], ids=["float", "discrete"])
def test_frames_of_other_spaces(cls):
    env = FrameStackObservation(cls(LENGTHS, ENDS), 3)
    replay = ReplayBuffer.from_env(env, 25, frame_stack=3, seed=0)
    for step in play(env, 60):
        replay.add(*step)
    assert drawn(replay, 1) == expected(env.unwrapped.rows, 25, 3, None, 1)
    assert replay.sample(1)[0].dtype == env.observation_space.dtype


def test_priorities_are_of_the_transition_drawn():
    env = FrameStackObservation(FrameEnv(), 4)
    replay = PrioritizedReplayBuffer.from_env(env, 20, frame_stack=4, alpha=1.0, seed=0)
    for step in play(env, 60):
        replay.add(*step)
    for _ in range(10):
        observation, transition, _ = replay.sample(1)
        replay.update_priorities(transition["key"], [1e9])
        preferred = replay.sample(100)[0]
        np.testing.assert_array_equal(preferred, np.broadcast_to(observation, preferred.shape))
        replay.update_priorities(transition["key"], [0.0])


def two_stacks(*numbers):
    """Observations of two environments, stacks of four frames."""
    return np.stack([[frame(number) for number in stack] for stack in numbers])


BEFORE = two_stacks((1, 1, 1, 1), (11, 12, 13, 14))
AFTER = two_stacks((1, 1, 1, 2), (12, 13, 14, 15))
BROKEN = {
    "not_moved_on": two_stacks((1, 1, 1, 2), (11, 12, 13, 14)),
    "moved_on_twice": two_stacks((1, 1, 1, 2), (13, 14, 15, 16)),
    "the_next_episode": two_stacks((1, 1, 1, 2), (21, 21, 21, 21)),
    "other_end": two_stacks((1, 1, 1, 2), (15, 11, 12, 13)),
}
STACKS = Box(0, 255, (4, 2, 2), np.uint8)


def add_two(replay, before, after, **kwargs):
    replay.add(before, [0, 1], [0.5, 1.5], [False] * 2, [False] * 2, after, **kwargs)


def state(replay):
    counts, arrays = replay.counters(), replay.arrays()
    return repr(counts), {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("after", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("running", [False, True], ids=["new", "running"])
def test_a_next_observation_that_does_not_continue_the_stack_changes_nothing(running, after):
    replay = ReplayBuffer(40, STACKS, Discrete(3), num_envs=2, frame_stack=4, seed=0)
    if running:
        add_two(replay, two_stacks((1, 1, 1, 1), (10, 11, 12, 13)), BEFORE)
    before = state(replay)
    with pytest.raises(ValueError, match=r"`next_observation` must hold the frames.*\[1\]"):
        add_two(replay, BEFORE, after)
    assert state(replay) == before
    add_two(replay, BEFORE, AFTER)
    assert len(replay) == (4 if running else 2)
    last = (counters(BEFORE)[1], 1, 1.5, GAMMA, counters(AFTER)[1])
    assert last in drawn(replay, 1)


def test_a_reset_to_the_same_newest_frame_is_a_reset():
    replay = ReplayBuffer(40, STACKS, Discrete(3), num_envs=2, frame_stack=4, seed=0)
    add_two(replay, BEFORE, AFTER)
    add_two(
        replay, two_stacks((2, 2, 2, 2), (0, 0, 0, 15)), two_stacks((2, 2, 2, 3), (0, 0, 15, 16))
    )
    assert {stack for stack, *_ in drawn(replay, 1)} == {
        (1, 1, 1, 1),
        (11, 12, 13, 14),
        (2, 2, 2, 2),
        (0, 0, 0, 15),
    }


def test_what_an_autoreset_gives_need_not_continue_a_stack():
    replay = ReplayBuffer(40, STACKS, Discrete(3), num_envs=2, frame_stack=4, seed=0)
    add_two(replay, BEFORE, BROKEN["the_next_episode"], where=[True, False])
    assert drawn(replay, 1) == {((1, 1, 1, 1), 0, 0.5, GAMMA, (1, 1, 1, 2))}


@pytest.mark.parametrize(
    ("frame_stack", "space", "capacity", "message"),
    [
        (3, STACKS, 40, "the size of the first axis.*frame_stack=3, observation_space="),
        (0, STACKS, 40, "`frame_stack` must be the size of the first axis"),
        (84, Box(0, 255, (4, 84, 84), np.uint8), 400, "Received: frame_stack=84"),
        (4, Discrete(4), 40, "`frame_stack` must be the size of the first axis"),
        (4, Box(-1, 1, ()), 40, "`frame_stack` must be the size of the first axis"),
        (
            4,
            Dict({"mask": Box(0, 1, (4,))}),
            40,
            "`frame_stack` must be the size of the first axis",
        ),
        (4, STACKS, 7, "`capacity` must hold.*capacity=7, num_envs=2, frame_stack=4"),
    ],
    ids=["three", "zero", "other_axis", "discrete", "scalar", "dict", "capacity"],
)
def test_wrong_stacks_are_refused(frame_stack, space, capacity, message):
    with pytest.raises(ValueError, match=message):
        ReplayBuffer(capacity, space, Discrete(3), num_envs=2, frame_stack=frame_stack)


def test_frames_are_bytes_up_to_the_network():
    seen = []

    class Watch(keras.layers.Layer):
        def call(self, inputs):
            seen.append(keras.backend.standardize_dtype(inputs.dtype))
            return keras.ops.cast(inputs, "float32") / 255.0

    replay = ReplayBuffer(40, STACKS, Discrete(3), num_envs=2, frame_stack=4, seed=0)
    add_two(replay, BEFORE, AFTER)
    for batch in (replay.empty_batch(), replay.sample(5)):
        assert batch[0].dtype == batch[1]["next_observation"].dtype == np.uint8
        assert batch[0].shape[1:] == (4, 2, 2)
    assert replay.dataset(4).element_spec[0].dtype == np.uint8
    image = keras.Input((4, 2, 2), dtype="uint8")
    values = keras.layers.Dense(3)(keras.layers.Flatten()(Watch()(image)))
    agent = DQN(keras.Model(image, values))
    agent.compile("sgd", jit_compile=False)
    seen.clear()
    agent.fit(replay.dataset(4), steps_per_epoch=2, verbose=0, callbacks=[SoftTargetUpdate()])
    assert set(seen) == {"uint8"}


def test_memory_of_atari_frames():
    replay = ReplayBuffer(
        2_040, Box(0, 255, (4, 84, 84), np.uint8), Discrete(4), frame_stack=4, seed=0
    )
    stack = np.zeros((4, 84, 84), np.uint8)
    for step in range(2_000):
        following = np.concatenate([stack[1:], np.full((1, 84, 84), step % 251, np.uint8)])
        replay.add(stack, 0, 0.0, False, step % 200 == 199, following)
        stack = following
    assert len(replay) == 2_000
    assert replay.nbytes <= 2_000 * (1.02 * 7_056 + 32)


class MaskedFrameEnv(FrameEnv):
    """With a mask of as many actions as a stack has frames, which follows from the counter."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.action_space = Discrete(3)

    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return observation, {**info, "action_mask": self.mask()}

    def step(self, action):
        *rest, info = super().step(action)
        return (*rest, {**info, "action_mask": self.mask()})

    def mask(self):
        return np.array([1, self.counter % 2, self.counter % 3 > 0], np.int8)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_mask_beside_stacked_frames_is_stored_as_it_is(mode):
    """What can be drawn equals what a buffer that keeps whole stacks gives."""

    def make():
        return ActionMaskObservation(FrameStackObservation(MaskedFrameEnv(), 3))

    drawn = []
    for frame_stack in (3, None):
        env = SyncVectorEnv([make, make], autoreset_mode=mode)
        replay = ReplayBuffer.from_env(env, 400, frame_stack=frame_stack, seed=0)
        collector = Collector(env, replay, exploration=EpsilonGreedy(1.0), seed=0)
        collector.collect_at_random(100)
        observation, transition, _ = replay.sample(4_000, n_step=2)
        after = transition["next_observation"]
        leaves = (observation["observation"], observation["action_mask"])
        leaves += (after["observation"], after["action_mask"], transition["discount"])
        drawn.append({tuple(leaf[i].tobytes() for leaf in leaves) for i in range(4_000)})
        assert observation["observation"].shape == (4_000, 3, 2, 2)
        assert observation["action_mask"].shape == (4_000, 3)
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) > 40


def test_a_mask_of_as_many_branches_as_frames_is_no_stack():
    space = Dict(observation=Box(0, 255, (4, 2), np.uint8), mask=Box(0, 1, (4, 5), np.int8))
    replay = ReplayBuffer(40, space, Discrete(2), frame_stack=4)
    frames = np.arange(10, dtype=np.uint8).reshape(5, 2)
    masks = np.random.default_rng(0).integers(2, size=(2, 4, 5)).astype(np.int8)
    before, after = (
        {"observation": frames[i : i + 4], "mask": mask} for i, mask in enumerate(masks)
    )
    replay.add(before, 0, 1.0, True, False, after)
    observation, transition, _ = replay.sample(1)
    for drawn, added in ((observation, before), (transition["next_observation"], after)):
        for name, array in added.items():
            np.testing.assert_array_equal(drawn[name][0], array)
