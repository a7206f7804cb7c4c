"""A buffer's `get_state` and `set_state`, against the buffer itself."""

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
