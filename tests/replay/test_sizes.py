import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from keras_dqn import PrioritizedReplayBuffer, ReplayBuffer

FRAMES = Box(0, 255, (4, 84, 84), np.uint8)
BUFFERS = {
    "uniform": (ReplayBuffer, {}),
    "proportional": (PrioritizedReplayBuffer, {}),
    "rank": (PrioritizedReplayBuffer, {"variant": "rank"}),
}


@pytest.mark.parametrize(("cls", "kwargs"), BUFFERS.values(), ids=BUFFERS.keys())
def test_nbytes_is_what_is_allocated(cls, kwargs):
    steps = np.random.default_rng(0).uniform(-1, 1, (6_001, 20)).astype(np.float32)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        replay = cls(6_000, Box(-1, 1, (20,)), Discrete(3), seed=0, **kwargs)
        for observation, following in pairwise(steps):
            replay.add(observation, 0, 0.0, False, False, following)
        replay.sample(1)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before == pytest.approx(replay.nbytes, abs=20_000)


def test_nbytes_of_all_leaves_and_environments():
    space = Dict(
        {"image": Box(0, 255, (4, 3), np.uint8), "speed": Box(-1, 1, ()), "g": Discrete(9)}
    )
    replay = ReplayBuffer(10, space, Discrete(3), num_envs=2)
    # 5 rows and the one to come; 12 bytes, a float32 and an int32; action, reward and flags.
    assert replay.nbytes == 2 * (5 + 1) * ((12 + 4 + 4) + (4 + 4 + 1))
    assert replay.nbytes == sum(array.nbytes for array in replay.arrays().values())


def test_stacked_frames_are_counted_once():
    replay = ReplayBuffer(10, FRAMES, Discrete(3), frame_stack=4)
    assert replay.nbytes == (10 + 1) * (84 * 84 + 9)


def test_nbytes_of_files(tmp_path):
    replay = ReplayBuffer(100, FRAMES, Discrete(3), storage="memmap", directory=tmp_path)
    in_memory = ReplayBuffer(100, FRAMES, Discrete(3))
    assert replay.nbytes == in_memory.nbytes
    headers = 128 * 4  # of observation, action, reward and flags
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == replay.nbytes + headers


@pytest.mark.parametrize(("cls", "kwargs"), BUFFERS.values(), ids=BUFFERS.keys())
@pytest.mark.parametrize(
    ("capacity", "space", "frame_stack", "message"),
    [
        (10**14, FRAMES, None, "2,823,300,000,000,028,233 bytes, 28,233 for each row"),
        (10**14, FRAMES, 4, "706,500,000,000,007,065 bytes, 7,065 for each row"),
        (10**20, FRAMES, 4, "706,500,000,000,000,000,007,065 bytes.*capacity=1"),
        (10**16, Discrete(9), None, "130,000,000,000,000,013 bytes.*capacity=10000000000000000$"),
    ],
    ids=["frames", "stacked", "beyond_addresses", "discrete"],
)
def test_what_cannot_be_allocated_names_its_bytes(
    cls, kwargs, capacity, space, frame_stack, message
):
    with pytest.raises(MemoryError, match=f"`capacity` needs {message}"):
        cls(capacity, space, Discrete(3), frame_stack=frame_stack, **kwargs)


def test_files_that_cannot_be_made_name_their_bytes(tmp_path):
    with pytest.raises(OSError, match=r"needs 28,233,000,000,028,233 bytes, 28,233 for each"):
        ReplayBuffer(10**12, FRAMES, Discrete(3), storage="memmap", directory=tmp_path)
