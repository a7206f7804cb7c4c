"""A buffer that comes back from the disk goes on, bit for bit, as the one that was written."""

import inspect
import json
import multiprocessing
import os
import shutil
import time
from collections import OrderedDict
from itertools import count, cycle, islice, pairwise

import gymnasium as gym
import h5py
import keras
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector.utils import batch_space

from keras_dqn import PrioritizedReplayBuffer, ReplayBuffer

STACKS = Box(0, 255, (4, 2), np.uint8)
ACTIONS = Discrete(3, start=5)
BUFFERS = {
    "uniform": (ReplayBuffer, {}),
    "proportional": (PrioritizedReplayBuffer, {"alpha": 0.7, "beta": 0.5, "epsilon": 0.01}),
    "rank": (PrioritizedReplayBuffer, {"variant": "rank"}),
}
SPACES = {
    "bytes": Box(0, 255, (3, 4), np.uint8),
    "unbounded": Box(-np.inf, np.inf, (2,), np.float64),
    "bounds": Box(np.float32([-1, 0.1]), np.float32([2, np.inf])),
    "scalar": Box(-1, 1, ()),
    "discrete": Discrete(5, start=-2),
    "binary": MultiBinary(5),
    "binary_axes": MultiBinary([2, 3]),
    "multi_discrete": MultiDiscrete([[3, 4], [5, 6]], np.int32, start=[[1, 2], [-3, 0]]),
    "nested": Dict({"a": Dict({"b": Box(0, 9, (2,)), "c": Discrete(9)}), "d": MultiBinary(2)}),
    "unsorted": Dict(OrderedDict([("z", Discrete(9)), ("a", Discrete(9))])),
    "numbered": Dict({1: Discrete(9), 0: Discrete(9)}),
}
if "dtype" in inspect.signature(Discrete).parameters:
    SPACES["int32"] = Discrete(5, dtype=np.int32)


def make(cls=ReplayBuffer, space=STACKS, capacity=60, **kwargs):
    return cls(capacity, space, ACTIONS, **{"seed": 3, **kwargs})


def random_steps(replay, seed=0):
    """Yields steps of all environments, as `add` takes them, for ever."""
    rng = np.random.default_rng(seed)
    space = batch_space(replay.observation_space, replay.num_envs)
    space.seed(seed)
    observation = space.sample()
    while True:
        following = space.sample()
        if replay.frame_stack:
            following = np.concatenate([observation[:, 1:], following[:, -1:]], axis=1)
        terminated, truncated = rng.random((2, replay.num_envs)) < 0.1
        yield {
            "observation": observation,
            "action": rng.integers(3, size=replay.num_envs) + 5,
            "reward": rng.normal(size=replay.num_envs),
            "terminated": terminated,
            "truncated": truncated,
            "next_observation": following,
            "where": rng.random(replay.num_envs) < 0.9,
        }
        ended = terminated | truncated
        observation = keras.tree.map_structure(
            lambda new, old, ended=ended: np.where(
                ended.reshape(-1, *[1] * (new.ndim - 1)), new, old
            ),
            space.sample(),
            following,
        )


def live(steps, num_steps, *replays):
    """Adds steps, draws batches, which must be the same, and feeds the same TD errors back."""
    rng = np.random.default_rng(0)
    for number, step in enumerate(islice(steps, num_steps)):
        for replay in replays:
            replay.add(**step)
        if number % 5 < 4:
            continue
        batches = [replay.sample(16, gamma=0.9, n_step=2) for replay in replays]
        for one, other in pairwise(keras.tree.flatten(batch) for batch in batches):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)
                assert type(a) is type(b) is np.ndarray
        td_error = rng.normal(size=16)
        for replay, (_, transition, _) in zip(replays, batches, strict=True):
            if "key" in transition:
                replay.update_priorities(transition["key"], td_error)


def state(replay):
    counters, arrays = replay.counters(), replay.arrays()
    contents = {name: (array.dtype, array.tobytes()) for name, array in arrays.items()}
    spaces = replay.observation_space, replay.action_space
    return json.dumps(counters), contents, replay.get_config(), spaces


def numbered(replay, numbers):
    """Adds one step from each number to the next to a buffer of Discrete observations."""
    for number in numbers:
        replay.add(number, 5 + number % 3, float(number), False, False, number + 1)


def starts(replay, **kwargs):
    observation, transition, _ = replay.sample(400, **kwargs)
    np.testing.assert_array_equal(transition["action"], observation % 3)
    return set(observation.tolist())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "replay.h5"


@pytest.fixture(params=["file", "directory"])
def reopened(request, tmp_path):
    """Gives a function that makes, fills, writes and reads: the twin in memory, what was read."""

    def make_twins(cls, num_steps, **kwargs):
        twin = make(cls, **kwargs)
        steps = random_steps(twin)
        if request.param == "file":
            live(steps, num_steps, twin)
            twin.save(tmp_path / "replay.h5")
            return steps, twin, cls.load(tmp_path / "replay.h5")
        mapped = make(cls, **kwargs, storage="memmap", directory=tmp_path / "replay")
        live(steps, num_steps, twin, mapped)
        mapped.flush()
        del mapped
        return steps, twin, cls.load(tmp_path / "replay")

    return make_twins


# Coming back


@pytest.mark.parametrize("num_steps", [0, 7, 100], ids=["empty", "part", "wrapped"])
@pytest.mark.parametrize("frame_stack", [None, 4], ids=["whole", "stacked"])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize(("cls", "kwargs"), BUFFERS.values(), ids=BUFFERS.keys())
def test_what_was_read_goes_on_as_what_was_written(
    reopened, cls, kwargs, num_envs, frame_stack, num_steps
):
    kwargs = {**kwargs, "num_envs": num_envs, "frame_stack": frame_stack}
    steps, twin, read = reopened(cls, num_steps, **kwargs)
    assert type(read) is cls
    assert len(read) == len(twin)
    assert state(read) == state(twin)
    live(steps, 60, twin, read)
    assert state(read) == state(twin)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_all_spaces_come_back(reopened, space):
    steps, twin, read = reopened(ReplayBuffer, 50, space=space, num_envs=2)
    assert read.observation_space == space
    assert str(read.observation_space) == str(space)  # bounds to the digit, keys in order
    assert read.action_space == ACTIONS
    live(steps, 20, twin, read)


def test_bounds_come_back_exactly(path):
    low, high = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    make(space=Box(np.minimum(low, high), np.maximum(low, high))).save(path)
    space = ReplayBuffer.load(path).observation_space
    np.testing.assert_array_equal(space.low, np.minimum(low, high))
    np.testing.assert_array_equal(space.high, np.maximum(low, high))


def test_a_space_of_a_subclass_comes_back_as_its_base(path):
    class Metres(Box):
        pass

    make(space=Metres(0, 5, (2,))).save(path)
    assert ReplayBuffer.load(path).observation_space == Box(0, 5, (2,))


@pytest.mark.parametrize(("cls", "kwargs"), BUFFERS.values(), ids=BUFFERS.keys())
def test_saving_changes_nothing(path, cls, kwargs):
    saved, twin = make(cls, **kwargs), make(cls, **kwargs)
    steps = random_steps(saved)
    for _ in range(5):
        live(steps, 17, saved, twin)
        saved.save(path)


def test_many_ranks_that_are_not_sorted_at_once(path):
    replay = make(PrioritizedReplayBuffer, Discrete(10**6), 12_000, variant="rank")
    numbered(replay, range(12_000))
    steps = random_steps(replay)
    live(steps, 100, replay)
    replay.save(path)
    live(steps, 50, replay, PrioritizedReplayBuffer.load(path))


def test_numpy_numbers_are_arguments_too(path):
    replay = make(capacity=np.int64(60), seed=np.int64(3), num_envs=np.int64(2))
    live(random_steps(replay), 20, replay)
    replay.save(path)
    assert state(ReplayBuffer.load(path)) == state(replay)


def test_a_beta_function_is_given_again(path):
    def beta(updates):
        return min(1.0, 0.1 * updates)

    replay = make(PrioritizedReplayBuffer, beta=beta)
    steps = random_steps(replay)
    live(steps, 20, replay)
    replay.save(path)
    with pytest.raises(ValueError, match=r"pass it to `load\(path, beta=...\)`"):
        PrioritizedReplayBuffer.load(path)
    loaded = PrioritizedReplayBuffer.load(path, beta=beta)
    assert loaded.updates == 4
    live(steps, 20, replay, loaded)


def test_from_memory_to_files_and_back(tmp_path):
    replay = make(PrioritizedReplayBuffer)
    steps = random_steps(replay)
    live(steps, 30, replay)
    replay.save(tmp_path / "memory.h5")
    kwargs = {"storage": "memmap", "directory": tmp_path / "replay"}
    mapped = PrioritizedReplayBuffer.load(tmp_path / "memory.h5", **kwargs)
    live(steps, 30, replay, mapped)
    mapped.save(tmp_path / "mapped.h5")
    live(steps, 30, replay, PrioritizedReplayBuffer.load(tmp_path / "mapped.h5"))


# The file


def test_the_file_holds_plain_arrays(path):
    replay = make(PrioritizedReplayBuffer)
    live(random_steps(replay), 100, replay)
    replay.save(path)
    arrays = replay.arrays()
    with h5py.File(path, "r") as file:
        assert file.attrs["version"] == 1
        assert file.keys() == {"header", *arrays}
        assert {dataset.dtype.kind for dataset in file.values()} <= set("iuf")
        for name, array in arrays.items():
            np.testing.assert_array_equal(file[name], array)


def test_the_file_is_on_the_disk_before_it_takes_its_name(path, monkeypatch):
    flushed, renamed = set(), []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def note_replace(source, target):
        assert os.stat(source).st_ino in flushed
        renamed.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    make().save(path)
    assert renamed == [str(path)]
    assert os.listdir(path.parent) == [path.name]
    assert path.parent.stat().st_ino in flushed


@pytest.fixture
def saved(path):
    """Gives a buffer that was saved to `path`."""
    replay = make()
    live(random_steps(replay), 100, replay)
    replay.save(path)
    return replay


REFUSED = "`path` holds no replay buffer that can be loaded: "


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.7, 0.99, -1], ids=str)
def test_a_truncated_file_is_refused(saved, path, part):
    size = path.stat().st_size
    os.truncate(path, size - 1 if part < 0 else int(part * size))
    with pytest.raises(ValueError, match=f"{REFUSED}HDF5 cannot read it.*replay.h5"):
        ReplayBuffer.load(path)


def test_damaged_data_are_refused(saved, path):
    with h5py.File(path, "r") as file:
        chunk = file["observation0"].id.get_chunk_info(0)
    flip(path, chunk.byte_offset + chunk.size // 2)
    with pytest.raises(ValueError, match=f"{REFUSED}its 'observation0' is damaged"):
        ReplayBuffer.load(path)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


def test_no_damaged_byte_goes_unnoticed(saved, path):
    positions = range(0, path.stat().st_size, 13)
    refused = 0
    for position in positions:
        flip(path, position)
        try:
            outcome = state(ReplayBuffer.load(path))
        except ValueError as error:
            outcome = str(error)
        if outcome != state(saved):  # as it is where the byte was in no use
            assert outcome[: len(REFUSED)] == REFUSED
            refused += 1
        flip(path, position)
    assert refused > 0.8 * len(positions)


def test_foreign_files_are_refused(path):
    with h5py.File(path, "w") as file:
        file["observation"] = np.zeros(3)
    with pytest.raises(ValueError, match=f"{REFUSED}it was not written by"):
        ReplayBuffer.load(path)
    path.write_text("no HDF5 at all")
    with pytest.raises(ValueError, match=f"{REFUSED}HDF5 cannot read it"):
        ReplayBuffer.load(path)


def test_another_version_is_refused(saved, path):
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 2
    with pytest.raises(ValueError, match=f"{REFUSED}it is of version 2, not 1"):
        ReplayBuffer.load(path)


def test_a_directory_of_another_version_is_refused(tmp_path):
    memmap(tmp_path).flush()
    header = tmp_path / "replay" / "buffer.json"
    header.write_text(header.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match=r"of version 1\. Received: .*of version 2"):
        ReplayBuffer.load(tmp_path / "replay")


@pytest.mark.parametrize("change", ["missing", "shape", "dtype"])
def test_an_array_that_does_not_fit_is_refused(saved, path, change):
    with h5py.File(path, "a") as file:
        reward = file["reward"][:]
        del file["reward"]
        if change != "missing":
            file["reward"] = reward[1:] if change == "shape" else reward.astype(np.float64)
    with pytest.raises(ValueError, match=f"{REFUSED}its 'reward' is .*, not float32"):
        ReplayBuffer.load(path)


def test_no_file_is_an_error(path):
    with pytest.raises(FileNotFoundError, match=r"replay\.h5"):
        ReplayBuffer.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make().save(path.parent / "nowhere" / "replay.h5")


class SpacesEnv(gym.Env):
    """An environment of given spaces."""

    def __init__(self, observation_space, action_space=ACTIONS):
        self.observation_space, self.action_space = observation_space, action_space


def written(storage, tmp_path, cls=ReplayBuffer, **kwargs):
    """Returns where a buffer was written to: a file, or the directory of its arrays."""
    if storage == "file":
        make(cls, **kwargs).save(tmp_path / "replay.h5")
        return tmp_path / "replay.h5"
    make(cls, **kwargs, storage="memmap", directory=tmp_path / "replay").flush()
    return tmp_path / "replay"


STORAGES = pytest.mark.parametrize("storage", ["file", "directory"])


@STORAGES
@pytest.mark.parametrize(
    ("wanted", "held"),
    [(PrioritizedReplayBuffer, ReplayBuffer), (ReplayBuffer, PrioritizedReplayBuffer)],
)
def test_another_class_is_refused(storage, tmp_path, wanted, held):
    path = written(storage, tmp_path, held)
    with pytest.raises(
        ValueError, match=rf"must hold a {wanted.__name__}\. .*, a {held.__name__}$"
    ):
        wanted.load(path)


@STORAGES
@pytest.mark.parametrize(
    ("env", "message"),
    [
        (SpacesEnv(Box(0, 254, (4, 2), np.uint8)), "its observation space differs"),
        (SpacesEnv(Box(0, 255, (4, 2), np.int32)), "its observation space differs"),
        (SpacesEnv(Dict({"a": STACKS})), "its observation space differs"),
        (SpacesEnv(STACKS, Discrete(3)), "its action space differs.*with Discrete.3, start=5"),
        (
            gym.vector.SyncVectorEnv([lambda: SpacesEnv(STACKS)] * 2),
            "its number of environments differs.*with 1, env with 2",
        ),
    ],
    ids=["bounds", "dtype", "dict", "actions", "num_envs"],
)
def test_an_env_that_does_not_fit_is_refused(storage, tmp_path, env, message):
    with pytest.raises(ValueError, match=f"`path` must hold a replay buffer for `env`: {message}"):
        ReplayBuffer.load(written(storage, tmp_path), env=env)


@STORAGES
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_an_env_that_fits_is_not_refused(storage, tmp_path, space):
    ReplayBuffer.load(written(storage, tmp_path, space=space), env=SpacesEnv(space))


# Kills

NUMBERS = Discrete(10**6)
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["keras_dqn"])  # so that each of many starts at once


@pytest.fixture
def run_and_kill():
    """Gives a function that kills a process some seconds after it has said that it is at work."""

    def run(seconds, target, *args):
        ours, its = PROCESSES.Pipe()
        process = PROCESSES.Process(target=target, args=(*args, its))
        process.start()
        its.close()
        try:
            ours.recv()
            time.sleep(seconds)
        finally:
            process.kill()  # SIGKILL
            process.join()
        assert process.exitcode == -9

    return run


def two_buffers():
    """Returns buffers of some megabytes, whose contents differ."""
    replays = []
    for number in (1, 2):
        replay = make(PrioritizedReplayBuffer, Box(0, 255, (10_000,), np.uint8), 500)
        pixels = np.random.default_rng(number).integers(256, size=(600, 10_000), dtype=np.uint8)
        for before, after in pairwise(pixels[: 300 * number]):
            replay.add(before, 5, 0.0, False, False, after)
        replay.sample(number)
        replays.append(replay)
    return replays


def save_for_ever(path, connection):
    for number, replay in enumerate(cycle(two_buffers())):
        replay.save(path)
        if number == 0:
            connection.send("at work")


def kill_while_saving(path, run_and_kill, kills):
    """Returns how many kills came in the middle of writing."""
    states = [state(replay) for replay in two_buffers()]
    interrupted = 0
    for wait in np.random.default_rng(0).uniform(0.0, 0.1, size=kills):
        run_and_kill(wait, save_for_ever, path)
        assert state(PrioritizedReplayBuffer.load(path)) in states
        interrupted += any("partial" in file.name for file in path.parent.iterdir())
    replay = make()
    replay.save(path)
    assert state(ReplayBuffer.load(path)) == state(replay)
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no debris
    return interrupted


def test_six_kills_leave_a_file_that_can_be_read(path, run_and_kill):
    assert kill_while_saving(path, run_and_kill, 6) > 1


@pytest.mark.hard
def test_twenty_kills_leave_a_file_that_can_be_read(path, run_and_kill):
    assert kill_while_saving(path, run_and_kill, 20) > 5


def flush_for_ever(directory, connection):
    replay = make(PrioritizedReplayBuffer, NUMBERS, 2_000, storage="memmap", directory=directory)
    for start in count(0, 10):
        numbered(replay, range(start, start + 10))
        replay.update_priorities(replay.sample(8)[1]["key"], np.ones(8))
        replay.flush()
        if start == 0:
            connection.send("at work")


def kill_while_flushing(tmp_path, run_and_kill, kills):
    for i, wait in enumerate(np.random.default_rng(1).uniform(0.0, 0.1, size=kills)):
        directory = tmp_path / str(i)
        run_and_kill(wait, flush_for_ever, directory)
        replay = PrioritizedReplayBuffer.load(directory)
        assert len(replay) >= 9
        observation, transition, weight = replay.sample(64)
        np.testing.assert_array_equal(transition["action"], observation % 3)
        np.testing.assert_array_equal(transition["next_observation"], observation + 1)
        assert np.isfinite(weight).all()
        replay.flush()
        assert not [file.name for file in directory.iterdir() if "partial" in file.name]


def test_three_kills_leave_a_directory_that_can_be_loaded(tmp_path, run_and_kill):
    kill_while_flushing(tmp_path, run_and_kill, 3)


@pytest.mark.hard
def test_twenty_kills_leave_a_directory_that_can_be_loaded(tmp_path, run_and_kill):
    kill_while_flushing(tmp_path, run_and_kill, 20)


def add_and_wait(directory, connection):
    replay = make(PrioritizedReplayBuffer, NUMBERS, 20, storage="memmap", directory=directory)
    numbered(replay, range(10))
    replay.flush()
    numbered(replay, range(10, 50))
    connection.send("at work")
    time.sleep(600)


def test_a_kill_leaves_a_directory_that_can_be_reopened(tmp_path, run_and_kill):
    run_and_kill(0.0, add_and_wait, tmp_path)
    replay = PrioritizedReplayBuffer.load(tmp_path)
    assert starts(replay) == set(range(30, 50))
    numbered(replay, [50])
    assert starts(replay, n_step=3) == set(range(31, 49))


# A directory of mapped arrays


def memmap(tmp_path, cls=ReplayBuffer, space=NUMBERS, **kwargs):
    return make(cls, space, **kwargs, storage="memmap", directory=tmp_path / "replay")


def test_arrays_are_the_files_of_the_directory(tmp_path):
    replay = memmap(tmp_path)
    numbered(replay, range(5))
    replay.flush()
    del replay
    before = {file.name: file.stat().st_ino for file in (tmp_path / "replay").iterdir()}
    replay = ReplayBuffer.load(tmp_path / "replay")
    for name, array in replay.arrays().items():
        assert isinstance(array, np.memmap)
        assert array.filename == tmp_path / "replay" / f"{name}.npy"
    numbered(replay, [777])
    assert 777 in np.load(tmp_path / "replay" / "observation0.npy")
    assert before == {file.name: file.stat().st_ino for file in (tmp_path / "replay").iterdir()}


def test_what_was_added_after_the_last_flush_is_there(tmp_path):
    replay = memmap(tmp_path, PrioritizedReplayBuffer, capacity=20, alpha=1.0)
    numbered(replay, range(10))
    keys = replay.sample(400)[1]["key"]
    replay.update_priorities(keys, np.zeros(400))
    replay.flush()
    numbered(replay, range(10, 15))
    del replay
    replay = PrioritizedReplayBuffer.load(tmp_path / "replay")
    assert len(replay) == 15
    assert replay.updates == 1
    assert starts(replay) == set(range(10, 15))  # of the largest priority; the others' is 1e-6
    replay.update_priorities(replay.sample(400)[1]["key"], np.zeros(400))
    assert starts(replay) == set(range(15))


def test_rows_that_were_overwritten_after_the_last_flush_are_new(tmp_path):
    replay = memmap(tmp_path, PrioritizedReplayBuffer, capacity=20)
    numbered(replay, range(20))
    replay.flush()
    numbered(replay, range(20, 85))
    assert starts(PrioritizedReplayBuffer.load(tmp_path / "replay")) == set(range(65, 85))


def test_an_episode_begun_after_the_last_flush_keeps_its_end(tmp_path):
    replay = memmap(tmp_path)
    replay.add(0, 5, 0.0, True, False, 1)
    replay.flush()
    numbered(replay, range(10, 13))
    replay = ReplayBuffer.load(tmp_path / "replay")
    numbered(replay, [100])
    observation, transition, _ = replay.sample(400)
    np.testing.assert_array_equal(transition["next_observation"], observation + 1)
    assert starts(replay, n_step=2) == {0, 10, 11, 12}


@STORAGES
def test_a_running_episode_goes_on(storage, tmp_path):
    replay = make(space=NUMBERS) if storage == "file" else memmap(tmp_path)
    numbered(replay, range(5))
    if storage == "file":
        replay.save(tmp_path / "replay")
    else:
        replay.flush()
    replay = ReplayBuffer.load(tmp_path / "replay")
    numbered(replay, range(5, 7))
    assert starts(replay, n_step=3) == set(range(5))
    numbered(replay, [100])  # and one that was reset ends
    assert starts(replay, n_step=3) == set(range(7))


def test_a_directory_is_not_overwritten(tmp_path):
    memmap(tmp_path).flush()
    with pytest.raises(ValueError, match=r"`directory` holds a replay buffer already.*replay'"):
        memmap(tmp_path)


def test_a_directory_that_was_never_flushed_holds_what_was_added(tmp_path):
    memmap(tmp_path)
    with pytest.raises(ValueError, match="`directory` holds no replay buffer"):
        ReplayBuffer.load(tmp_path / "replay")  # nothing was added yet
    with pytest.raises(ValueError, match="`directory` holds arrays already"):
        memmap(tmp_path)
    shutil.rmtree(tmp_path / "replay")
    numbered(memmap(tmp_path), range(3))
    assert starts(ReplayBuffer.load(tmp_path / "replay")) == {0, 1, 2}


@pytest.mark.parametrize("name", ["observation0", "reward"])
def test_a_directory_with_another_array_is_refused(tmp_path, name):
    memmap(tmp_path).flush()
    np.save(tmp_path / "replay" / f"{name}.npy", np.zeros(7))
    with pytest.raises(
        ValueError, match=rf"{name}.npy must be .*\(61,\). Received: float64 \(7,\)"
    ):
        ReplayBuffer.load(tmp_path / "replay")


@pytest.mark.parametrize("name", ["observation0.npy", "counts.npy", "priority_value.npy"])
@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_directory_with_a_truncated_array_is_refused(tmp_path, name, size):
    memmap(tmp_path, PrioritizedReplayBuffer).flush()
    file = tmp_path / "replay" / name
    os.truncate(file, size if size >= 0 else file.stat().st_size - 1)
    with pytest.raises(ValueError, match=rf"`directory` holds no replay buffer.*{name}"):
        PrioritizedReplayBuffer.load(tmp_path / "replay")


@pytest.mark.parametrize(
    "kwargs",
    [{"storage": "disk"}, {"storage": "memmap"}, {"directory": "replay"}],
    ids=["unknown", "no_directory", "directory_alone"],
)
def test_storages_that_there_are_not_are_refused(kwargs):
    with pytest.raises(ValueError, match="`storage` must be 'memory', or 'memmap' with a `dir"):
        make(**kwargs)


def test_memory_is_not_flushed():
    with pytest.raises(ValueError, match="`flush` is for `storage='memmap'`; `save"):
        make().flush()
