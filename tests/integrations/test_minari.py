"""Minari datasets: loaded against `add_episode`, and recorded against the environment."""

import gc
import subprocess
import sys
import tracemalloc

import gymnasium as gym
import keras
import numpy as np
import pytest
from envs import CountingEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from walks import ACTIONS, SPACES, Walk, assert_draws_equal, ring

import keras_dqn

minari = pytest.importorskip("minari")
from minari.data_collector import EpisodeBuffer  # noqa: E402

from keras_dqn.integrations.minari import load, record  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:`.*` is set to None:UserWarning"),  # author and the like
    pytest.mark.filterwarnings("ignore:env_spec is None:UserWarning"),
]
BOX = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def episode_of(observations, actions=None, terminated=True, **kwargs):
    num_steps = len(actions) if actions is not None else len(observations) - 1
    ends = np.arange(num_steps) == num_steps - 1
    arrays = {
        "actions": np.zeros(num_steps, np.int64) if actions is None else np.asarray(actions),
        "rewards": 1.0 + np.arange(num_steps),
        "terminations": ends & terminated,
        "truncations": ends & (not terminated),
    }
    return EpisodeBuffer(observations=observations, **{**arrays, **kwargs})


def written(episodes, space=BOX, actions=None, **kwargs):
    """Returns a dataset that Minari has written."""
    spaces = {"observation_space": space, "action_space": actions or gym.spaces.Discrete(2)}
    return minari.create_dataset_from_buffers("some/data-v0", episodes, **spaces, **kwargs)


def counted(numbers):
    return np.array(numbers, np.float32)[:, None]


def walked(kind, rng, num_episodes):
    """Returns random episodes, each observation with its own number."""
    walk, episodes = Walk(kind, 1, rng), []
    for num_steps in rng.integers(1, 40, num_episodes):
        observations = [walk.observation(0)]
        for _ in range(num_steps):
            walk.ticks[0] += 1
            observations.append(walk.observation(0))
        walk.restart(0)
        if isinstance(observations[0], dict):
            keys = observations[0]
            observations = {key: np.stack([o[key] for o in observations]) for key in keys}
        else:
            observations = np.stack(observations)
        actions, rewards = rng.integers(5, 8, num_steps), rng.normal(size=num_steps)
        episodes.append(
            episode_of(observations, actions, bool(rng.random() < 0.5), rewards=rewards)
        )
    return episodes


@pytest.mark.parametrize("cls", [keras_dqn.ReplayBuffer, keras_dqn.PrioritizedReplayBuffer])
@pytest.mark.parametrize("kind", SPACES)
def test_a_dataset_is_loaded_episode_by_episode(kind, cls):
    space, frame_stack = SPACES[kind]
    episodes = walked(kind, np.random.default_rng(3), 30)
    written(episodes, space, ACTIONS, jpeg_encoding=False)
    ours = load("some/data-v0", buffer_class=cls, frame_stack=frame_stack, seed=7)
    assert type(ours) is cls
    assert len(ours) == sum(len(episode.rewards) for episode in episodes)
    theirs = cls(ours.capacity, space, ACTIONS, frame_stack=frame_stack, seed=7)
    for episode in episodes:
        theirs.add_episode(
            episode.observations, episode.actions, episode.rewards, bool(episode.terminations[-1])
        )
    assert ring(ours, 0) == ring(theirs, 0)
    assert_draws_equal(ours, theirs)


def test_only_a_termination_has_no_next_value():
    none = np.zeros(2, bool)
    episodes = [
        episode_of(counted([1, 2, 3]), terminated=True),
        episode_of(counted([11, 12, 13]), terminated=False),
        episode_of(counted([21, 22, 23]), terminations=none, truncations=none),
    ]
    replay = load(written(episodes), seed=0)
    observation, transition, _ = replay.sample(300, gamma=0.5)
    pairs = zip(observation[:, 0], transition["discount"], strict=True)
    assert set(pairs) == {(1, 0.5), (2, 0.0), (11, 0.5), (12, 0.5), (21, 0.5), (22, 0.5)}
    last = observation[:, 0] == 22
    assert set(transition["next_observation"][last].ravel()) == {23}
    assert set(transition["reward"][last]) == {2.0}


def test_parts_of_a_dataset_are_loaded():
    dataset = written([episode_of(counted([e, e])) for e in range(10)])
    parts = [load(part, seed=0) for part in minari.split_dataset(dataset, [7, 3], seed=0)]
    starts = [set(part.sample(200)[0].ravel().tolist()) for part in parts]
    assert [len(part) for part in starts] == [7, 3]
    assert set.union(*starts) == set(range(10))


def test_a_smaller_buffer_keeps_the_last_episodes():
    dataset = written([episode_of(counted([e, e])) for e in range(10)])
    observation = load(dataset, capacity=7, seed=0).sample(100)[0]
    assert set(observation.ravel()) == {7, 8, 9}


def test_several_branches_and_a_tuple():
    space = gym.spaces.Tuple([BOX, gym.spaces.Discrete(9)])
    branches = gym.spaces.MultiDiscrete([2, 3])
    observations = (counted([1, 2, 3]), np.array([4, 5, 6]))
    episode = episode_of(observations, [[0, 2], [1, 0]])
    replay = load(written([episode], space, branches), seed=0)
    (first, second), transition, _ = replay.sample(50)
    found = zip(first[:, 0], second, map(tuple, transition["action"].tolist()), strict=True)
    assert set(found) == {(1, 4, (0, 2)), (2, 5, (1, 0))}


def test_one_episode_is_in_memory_at_a_time():
    space = gym.spaces.Box(0, 255, (10_000,), np.uint8)
    one = np.zeros((11, 10_000), np.uint8)  # 110 KB
    dataset = written([episode_of(one)] * 200, space)
    load(dataset, capacity=20)  # imports
    tracemalloc.start()
    replay = load(dataset, capacity=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < replay.nbytes + 10 * one.nbytes


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (lambda: "some/other-v0", FileNotFoundError, "`dataset` must be the id .*'some/other-v0'"),
        (lambda: 3, TypeError, "`dataset` must be the id of a dataset or a MinariDataset"),
        (lambda: written([]), ValueError, "`dataset` must have an episode. Received: some/data-v0"),
        (
            lambda: written([episode_of(counted([1, 2, 3]), terminations=np.array([True, False]))]),
            ValueError,
            "episode 0 of 2 steps, with an end before",
        ),
        (
            lambda: written([episode_of(counted([1, 2]), [[0.5]])], actions=BOX),
            ValueError,
            "`action_space` must be",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused(dataset, error, message):
    with pytest.raises(error, match=message):
        load(dataset())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"buffer_class": 3}, "`buffer_class` must be ReplayBuffer or Prioritized.* Received: .*3"),
        ({"num_envs": 2}, "`num_envs` must not be given: .* Received: num_envs=2"),
        ({"frame_stack": "x"}, "`frame_stack` must be an integer"),
        ({"capacity": "x"}, "`capacity` must be an integer"),
    ],
)
def test_wrong_arguments_of_load_are_refused(arguments, match):
    dataset = written([episode_of(counted([1, 2, 3]))])
    with pytest.raises(TypeError, match=match):
        load(dataset, **arguments)


def q_network(num_actions=3):
    """Values that grow with the action: the greedy action is the last one."""
    bias = keras.initializers.Constant(np.arange(num_actions))
    dense = keras.layers.Dense(num_actions, kernel_initializer="zeros", bias_initializer=bias)
    return keras.Sequential([keras.Input((1,)), dense])


def rows_of(dataset):
    return [
        (int(before[0]), int(action), float(reward), bool(terminated), bool(truncated), int(after))
        for episode in dataset.iterate_episodes()
        for before, action, reward, terminated, truncated, after in zip(
            episode.observations[:-1],
            episode.actions,
            episode.rewards,
            episode.terminations,
            episode.truncations,
            episode.observations[1:, 0],
            strict=True,
        )
    ]


def test_an_environment_is_recorded_as_it_was():
    env = CountingEnv(lengths=(3, 1, 5), ends=("terminated", "truncated"), start=4, in_place=True)
    explore = keras_dqn.EpsilonGreedy(0.5)
    dataset = record(q_network(), env, "own/count-v0", episodes=7, exploration=explore, seed=0)
    assert rows_of(dataset) == [tuple(row) for row in env.rows]
    assert len({row.action for row in env.rows}) == 3
    assert env.seeds[0] == 0
    assert dataset.total_episodes == 7
    assert rows_of(minari.load_dataset("own/count-v0")) == rows_of(dataset)
    assert len(load("own/count-v0")) == len(env.rows)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_each_environment_of_a_vector_plays_its_share(mode):
    make = [lambda first=first: CountingEnv((2, 4), first=first) for first in (0, 1_000)]
    envs = SyncVectorEnv(make, autoreset_mode=mode)
    dataset = record(q_network(), envs, "own/count-v0", episodes=5)
    expected = []
    for env, share in zip(envs.envs, (3, 2), strict=True):
        num_steps = sum(env.unwrapped.lengths[e % 2] for e in range(share))
        expected += [tuple(row) for row in env.unwrapped.rows[:num_steps]]
    if mode is AutoresetMode.DISABLED:
        assert dataset.total_episodes == 5
    assert sorted(rows_of(dataset)) == sorted(expected)


def test_an_episode_that_is_cut_counts_as_truncated():
    env = CountingEnv(lengths=(5,))
    dataset = record(q_network(), env, "own/count-v0", episodes=2, max_episode_steps=3)
    for episode in dataset.iterate_episodes():
        assert len(episode.rewards) == 3
        assert episode.truncations.tolist() == [False, False, True]
        assert not episode.terminations.any()
    firsts = [int(episode.observations[0, 0]) for episode in dataset.iterate_episodes()]
    assert firsts == [0, 4]


def test_a_schedule_counts_the_steps_of_the_recording():
    explore = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.0, 200))
    env = CountingEnv(lengths=(20,))
    record(q_network(), env, "own/count-v0", episodes=20, exploration=explore, seed=0)
    actions = [row.action for row in env.rows]
    assert len(set(actions[:50])) == 3
    assert set(actions[200:]) == {2}


def test_many_steps_are_written_in_several_goes():
    env = CountingEnv(lengths=(400,))
    dataset = record(q_network(), env, "own/count-v0", episodes=7)
    assert dataset.total_steps == 2_800
    assert rows_of(dataset) == [tuple(row) for row in env.rows]


def test_images_and_dicts_are_recorded_without_loss():
    space = gym.spaces.Dict(image=gym.spaces.Box(0, 255, (32, 32, 3), np.uint8), number=BOX)

    class Images(gym.Env):
        observation_space, action_space = space, gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.rng, self.seen = np.random.default_rng(1), []
            return self.look(), {}

        def look(self):
            image = self.rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            self.seen.append(image)
            return {"image": image, "number": np.array([len(self.seen)], np.float32)}

        def step(self, action):
            return self.look(), 1.0, False, len(self.seen) == 4, {}

    class Network(keras.Model):
        def call(self, inputs):
            number = keras.ops.cast(inputs["number"], "float32")
            return keras.ops.concatenate([number, 2.0 - number], axis=-1)

    env = Images()
    dataset = record(Network(), env, "own/images-v0", episodes=1)
    (episode,) = dataset.iterate_episodes()
    again = Images()
    again.reset()
    for _ in range(3):
        again.step(0)
    np.testing.assert_array_equal(episode.observations["image"], again.seen)
    assert episode.observations["number"].ravel().tolist() == [1, 2, 3, 4]
    assert episode.actions.tolist() == [0, 0, 0]


def cartpole_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def test_the_environment_can_be_recovered():
    single = gym.make("CartPole-v1", sutton_barto_reward=True)
    several = gym.make_vec("CartPole-v1", num_envs=2, sutton_barto_reward=True)
    for e, env in enumerate((single, several)):
        dataset = record(cartpole_model(), env, f"own/pole-v{e}", episodes=2)
        recovered = dataset.recover_environment()
        assert recovered.spec.id == "CartPole-v1"
        assert recovered.unwrapped._sutton_barto_reward
    limited = gym.make_vec("CartPole-v1", 2, "vector_entry_point", max_episode_steps=50)
    dataset = record(cartpole_model(), limited, "own/pole-v3", episodes=2)
    assert dataset.recover_environment().spec.max_episode_steps == 50
    wrapped = gym.make_vec(
        "CartPole-v1",
        num_envs=2,
        vectorization_mode="sync",
        wrappers=[gym.wrappers.RecordEpisodeStatistics],
    )
    dataset = record(cartpole_model(), wrapped, "own/pole-v2", episodes=2)
    with pytest.raises(ValueError, match="cannot be recovered"):
        dataset.recover_environment()


def test_an_environment_that_cannot_be_recovered_is_not_written():
    class Fails:
        def __init__(self):
            raise OSError("no such game")

    def several(num_envs):
        return SyncVectorEnv([CountingEnv] * num_envs)

    def pole():
        return gym.make("CartPole-v1")

    for name, single in {"Fails-v0": Fails, "Differs-v0": pole}.items():
        gym.register(name, single, vector_entry_point=several)
    try:
        env = gym.make_vec("Fails-v0", num_envs=2)
        with pytest.warns(UserWarning, match="`recover_environment` will make no .*no such game"):
            dataset = record(q_network(), env, "own/count-v0", episodes=2)
        assert dataset.env_spec is None
        env = gym.make_vec("Differs-v0", num_envs=2)
        assert record(q_network(), env, "own/count-v1", episodes=2).env_spec is None
    finally:
        del gym.registry["Fails-v0"], gym.registry["Differs-v0"]


def test_an_interrupted_recording_keeps_what_it_has_written(monkeypatch):
    class Breaks(CountingEnv):
        def step(self, action):
            if self.counter > limit:
                raise KeyboardInterrupt
            return super().step(action)

    limit = 2_500
    with pytest.raises(KeyboardInterrupt):
        record(q_network(), Breaks(lengths=(400,)), "own/count-v0", episodes=20)
    assert minari.load_dataset("own/count-v0").total_steps in (1_200, 2_400)
    with pytest.raises(ValueError, match="own/count-v0 already exists"):
        record(q_network(), CountingEnv(), "own/count-v0", episodes=1)
    limit = 100
    with pytest.raises(KeyboardInterrupt):
        record(q_network(), Breaks(lengths=(400,)), "own/count-v1", episodes=20)
    record(q_network(), CountingEnv(), "own/count-v1", episodes=1)  # the id is free


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"episodes": 0}, ValueError, "`episodes` must be"),
        ({"max_episode_steps": 0}, ValueError, "`max_episode_steps` must be"),
        ({"exploration": 0.5}, TypeError, "`exploration` must be"),
        ({"seed": "x"}, TypeError, "`seed` must be"),
        ({"env": "CartPole-v1"}, TypeError, "`env` must be"),
        ({"model": 3}, TypeError, "`model` must be"),
        ({"model": q_network(2)}, ValueError, "actions"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_leaves_no_dataset(wrong, error, message):
    right = {"model": q_network(), "env": CountingEnv(), "dataset_id": "own/count-v0"}
    with pytest.raises(error, match=message):
        record(**{**right, "episodes": 1, **wrong})
    assert not minari.list_local_datasets()


# Minari moves the folder and leaves it to the garbage collector.
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_a_dataset_of_minaris_own_collector_is_loaded():
    pytest.importorskip("jax")
    env = minari.DataCollector(CountingEnv(lengths=(3, 4), ends=("terminated", "truncated")))
    for seed in range(4):
        env.reset(seed=seed)
        while not any(env.step(env.action_space.sample())[2:4]):
            pass
    dataset = env.create_dataset("own/collected-v0")
    rows = env.unwrapped.rows
    env.close()
    del env
    gc.collect()
    replay = load(dataset, seed=0)
    observation, transition, _ = replay.sample(500, gamma=0.5)
    batch = (observation[:, 0], transition["action"], transition["reward"], transition["discount"])
    expected = {(r.observation, r.action, r.reward, 0.0 if r.terminated else 0.5) for r in rows}
    assert set(zip(*(each.tolist() for each in batch), strict=True)) == expected


def test_without_minari_the_error_names_the_command():
    code = "import sys; sys.modules['minari'] = None; import keras_dqn.integrations.minari"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: `keras_dqn.integrations.minari` needs Minari: python -m")
