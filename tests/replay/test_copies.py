"""Copied and pickled buffers draw what the original draws; once their weights were NaN."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest

from keras_dqn import PrioritizedReplayBuffer, ReplayBuffer

KINDS = {
    "uniform": (ReplayBuffer, {}),
    "prioritized": (PrioritizedReplayBuffer, {}),
    "rank": (PrioritizedReplayBuffer, {"variant": "rank"}),
}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_goes_on_as_the_original(kind, copied):
    cls, kwargs = KINDS[kind]
    replay = cls(30, gym.spaces.Box(-9, 9, (2,)), gym.spaces.Discrete(3), seed=0, **kwargs)

    def live(buffer, start):
        for step in range(start, start + 9):
            buffer.add(np.full(2, step % 9), step % 3, step, step % 4 == 3, False, np.full(2, 1))
        if cls is PrioritizedReplayBuffer:
            keys = buffer.sample(8)[1]["key"]
            buffer.update_priorities(keys, np.arange(8.0))
        return buffer.sample(64, gamma=0.5, n_step=2)

    live(replay, 0)
    twin = copied(replay)
    np.testing.assert_equal(live(twin, 9), live(replay, 9))
    assert np.isfinite(twin.sample(64)[2]).all()
    np.testing.assert_equal(twin.get_state()["rows"], replay.get_state()["rows"])


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_copy_of_mapped_files_is_refused(copied, tmp_path):
    replay = ReplayBuffer(
        30,
        gym.spaces.Box(-9, 9),
        gym.spaces.Discrete(3),
        storage="memmap",
        directory=tmp_path / "m",
    )
    with pytest.raises(TypeError, match="A replay buffer of `storage='memmap'` cannot be copied"):
        copied(replay)
