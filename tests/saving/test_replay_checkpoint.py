"""A buffer in a checkpoint: what another buffer has written, and forged contents, are refused."""

import gymnasium as gym
import numpy as np
import pytest

from keras_dqn import PrioritizedReplayBuffer, ReplayBuffer
from keras_dqn.hdf5 import DamagedFileError
from keras_dqn.saving.replay_checkpoint import ReplayCheckpoint

SPACE = gym.spaces.Box(-np.inf, np.inf, (2,))


def buffer(kind=ReplayBuffer, actions=3, **kwargs):
    replay = kind(50, SPACE, gym.spaces.Discrete(actions), seed=0, **kwargs)
    for step in range(70):
        observation = np.full(2, step, np.float32)
        replay.add(observation, step % actions, 1.0, step % 9 == 8, False, observation + 1)
    return replay


@pytest.mark.parametrize("variant", [None, "proportional", "rank"])
def test_a_buffer_continues_exactly(variant, tmp_path):
    kind = {} if variant is None else {"kind": PrioritizedReplayBuffer, "variant": variant}
    replay, other = buffer(**kind), buffer(**kind)
    other.sample(8)
    if variant is not None:
        for one in (replay, other):
            key = one.sample(8)[1]["key"]
            one.update_priorities(key, np.arange(8.0) * (1 if one is replay else 2))
    saved = ReplayCheckpoint(replay, tmp_path, 0).save(1)
    ReplayCheckpoint(other, tmp_path, 0).restore(saved)
    np.testing.assert_equal(other.get_state(), replay.get_state())
    for _ in range(3):
        np.testing.assert_equal(other.sample(16), replay.sample(16))


def test_rows_that_no_buffer_writes_are_refused(tmp_path):
    replay = buffer(actions=5)
    saved = ReplayCheckpoint(replay, tmp_path, 0).save(1)
    with pytest.raises(DamagedFileError, match="its 'action' holds values that no buffer writes"):
        ReplayCheckpoint(buffer(actions=3), tmp_path, 0).restore(saved)
    with pytest.raises(ValueError, match="its `action_space` differs"):
        ReplayCheckpoint(buffer(actions=3), tmp_path, 0).check(saved)


@pytest.mark.parametrize("part", ["state", "heads", "no heads", "huge heads", "segments"])
def test_forged_parts_are_refused(part, tmp_path):
    saved = ReplayCheckpoint(buffer(), tmp_path, 0).save(1)
    forged = {
        "state": {**saved, "state": {"heads": [70]}},
        "heads": {**saved, "state": {**saved["state"], "heads": ["many"]}},
        "no heads": {**saved, "state": {**saved["state"], "heads": []}},
        "huge heads": {**saved, "state": {**saved["state"], "heads": [2**63]}},
        "segments": {**saved, "segments": [{"file": "rows-0-1-0.h5"}]},
    }[part]
    with pytest.raises(ValueError):
        ReplayCheckpoint(buffer(), tmp_path, 0).restore(forged)
