"""The seeds of resets, and running episodes that a collector repeats in another environment."""

import json

import gymnasium as gym
import numpy as np
import pytest
from envs import CountingEnv, DrawingEnv, SharedGeneratorEnv
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from keras_dqn import Collector, EpsilonGreedy, ReplayBuffer
from keras_dqn.acting import collector as collector_module
from keras_dqn.acting.environment_stepper import EnvironmentStepper
from keras_dqn.acting.episode_record import EpisodeRecord
from keras_dqn.acting.observations import equal
from keras_dqn.replay.n_step import BOUNDARY, TRUNCATED
from keras_dqn.spaces.env_spaces import single_spaces

MODES = [mode.value for mode in AutoresetMode]
AUTORESET_MODES = ["NextStep", "SameStep"]


def cart_pole():
    return gym.make("CartPole-v1", max_episode_steps=15)


def vector(mode, make_env=DrawingEnv, num_envs=3, cls=SyncVectorEnv):
    return cls([make_env] * num_envs, autoreset_mode=mode)


MAKERS = {
    "single": lambda: DrawingEnv(start=2),
    "single CartPole": cart_pole,
    **{mode: lambda mode=mode: vector(mode) for mode in MODES},
    **{f"{mode} CartPole": lambda mode=mode: vector(mode, cart_pole) for mode in MODES},
    "Disabled, 1": lambda: vector("Disabled", num_envs=1),
    "Disabled, one generator": SharedGeneratorEnv,
}
ENVIRONMENTS = pytest.mark.parametrize("make_env", MAKERS.values(), ids=MAKERS)


class Linear:
    """A policy whose actions depend on all numbers of an observation."""

    def __init__(self, env):
        self.num_actions = int(single_spaces(env)[1].n)

    def action_values(self, observation):
        weights = np.random.default_rng(5).normal(size=(observation.shape[1], self.num_actions))
        return observation @ weights


def make(env, seed=3, capacity=150):
    replay = ReplayBuffer.from_env(env, capacity, seed=0)
    return Collector(env, replay, exploration=EpsilonGreedy(0.3), seed=seed)


def take(collector, num_steps=1):
    """Takes steps of all environments."""
    for _ in range(num_steps):
        collector.collect(Linear(collector.env), collector.stepper.num_envs)


def state_of(collector):
    return collector.get_state(), collector.replay.get_state()


def through_json(state):
    return json.loads(json.dumps(state, default=lambda array: array.tolist()))


def restored(state, env):
    other = make(env, seed=99)
    other.set_state(state[0])
    other.replay.set_state(state[1])
    return other


def seeds_of(env):
    return [one.seeds for one in env.envs] if isinstance(env, SyncVectorEnv) else [env.seeds]


# Running episodes


@pytest.mark.parametrize("limit", [50_000, 40], ids=["no cut", "cuts"])
@ENVIRONMENTS
def test_a_new_environment_goes_on_from_any_moment(make_env, limit, monkeypatch):
    monkeypatch.setattr(collector_module, "MAX_RECORDED_STEPS", limit)
    reference = make(make_env())
    moments = [state_of(reference)]
    for _ in range(30):
        take(reference)
        moments.append(state_of(reference))
    take(reference, 20)
    assert reference.episodes > 2
    for t, state in enumerate(moments):
        other = restored((as_sent(state[0], t), state[1]), make_env())
        take(other, 50 - t)
        np.testing.assert_equal(state_of(other), state_of(reference), err_msg=f"from step {t}")
    # The moments include the start, the middle of an episode and an end.
    lengths = [state["statistics"]["lengths"] for state, _ in moments]
    assert any((length > 0).all() for length in lengths)
    assert any((length == 0).any() for length in lengths[1:])


def as_sent(state, t):
    return through_json(state) if t % 2 else state


@pytest.mark.parametrize("mode", MODES)
def test_an_async_vector_environment_goes_on(mode):
    envs = [vector(mode, cls=AsyncVectorEnv) for _ in range(2)]
    try:
        reference = make(envs[0])
        take(reference, 17)
        other = restored(state_of(reference), envs[1])
        for collector in (reference, other):
            take(collector, 20)
        np.testing.assert_equal(state_of(other), state_of(reference))
    finally:
        for env in envs:
            env.close()


@ENVIRONMENTS
def test_the_same_environment_goes_back(make_env):
    collector = make(make_env())
    take(collector, 17)
    state = state_of(collector)
    ends = []
    for _ in range(2):
        take(collector, 20)
        ends.append(state_of(collector))
        collector.set_state(state[0])
        collector.replay.set_state(state[1])
    np.testing.assert_equal(*ends)


@pytest.mark.parametrize("make_env", [DrawingEnv, lambda: vector("Disabled")], ids=["single", "3"])
def test_the_record_begins_with_the_oldest_running_episode(make_env):
    collector = make(make_env())
    for _ in range(200):
        take(collector)
        state = collector.get_state()
        lengths, record = state["statistics"]["lengths"], state["stepper"]["record"]
        assert len(record["actions"]) == lengths.max()
        np.testing.assert_array_equal(record["starts"], lengths.max() - lengths)
        assert record["actions"].dtype == np.int32


def test_long_records_are_kept_as_a_whole():
    record = EpisodeRecord(CountingEnv(), seed=0)
    record.begin()
    for i in range(1_000):
        record.add(np.array([i % 3]))
    other = EpisodeRecord(CountingEnv(), seed=1)
    other.set_state(record.get_state())
    other.add(np.array([7]))
    assert other.actions[:, 0].tolist() == [i % 3 for i in range(1_000)] + [7]
    assert record.get_state()["actions"].shape == (1_000, 1)


class Failing(DrawingEnv):
    fails = False

    def reset(self, **kwargs):
        if self.fails:
            raise KeyboardInterrupt
        return super().reset(**kwargs)

    def step(self, action):
        if self.fails:
            raise OSError("the simulator is gone")
        return super().step(action)


def test_after_an_interrupted_step_nothing_is_repeated():
    env = Failing()
    collector = make(env)
    take(collector, 3)
    env.fails = True
    with pytest.raises(OSError, match="the simulator is gone"):
        take(collector)
    env.fails = False
    other = restored(state_of(collector), DrawingEnv())
    assert other.env.seeds == []
    before = len(env.seeds)
    for one in (collector, other):
        take(one, 5)
    np.testing.assert_equal(state_of(other), state_of(collector))
    assert other.env.seeds == env.seeds[before:]
    assert env.seeds[0] == 3
    assert len(env.seeds) == len(set(env.seeds)) > before


def test_after_an_interrupted_reset_new_episodes_begin():
    env = Failing()
    collector = make(env)
    take(collector, 3)
    env.fails = True
    with pytest.raises(KeyboardInterrupt):
        collector.reset()
    env.fails = False
    assert collector.get_state()["stepper"]["observation"] is None
    take(collector)
    assert collector.statistics.get_state()["lengths"] == [1]


# Environments that do not repeat their episodes


def counting(lengths, first=0):
    return lambda: CountingEnv(lengths, first=first)


@pytest.mark.parametrize(
    ("make_env", "make_other"),
    [
        (counting((9,)), counting((9,), first=100)),
        (counting((9,)), counting((2,))),
        (lambda: vector("NextStep", counting((9,)), 1),
         lambda: vector("NextStep", counting((4,)), 1)),
        *(
            (lambda mode=mode: vector(mode, counting((9,)), 1),
             lambda mode=mode: vector(mode, counting((3,), first=100), 1))
            for mode in MODES
        ),
    ],
    ids=["single", "single that ends too early", "NextStep that resets itself next", *MODES],
)  # fmt: skip
def test_what_does_not_repeat_is_named_and_begins_anew(make_env, make_other):
    collector, other_env = make(make_env()), make_other()
    take(collector, 4)
    with pytest.warns(UserWarning, match=r"`env` did not repeat its.*Received: env=.*Env") as seen:
        other = restored(state_of(collector), other_env)
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    assert other.env_steps == 4
    take(other, 1)
    assert len(other.replay) == other.env_steps == 5
    assert other.statistics.get_state()["lengths"] == [1]
    # A new episode with a new seed; the stored one is cut.
    assert len({*seeds_of(other_env)[0], None}) == 3
    assert other.replay.arrays()["flags"][3] == TRUNCATED


def test_a_stepper_without_a_record_leaves_the_environment_alone():
    env = DrawingEnv()
    stepper = EnvironmentStepper(env)
    stepper.reset(seed=4)
    state = stepper.get_state()
    assert set(state) == {"observation", "resetting"}
    stepper.set_state(state)
    stepper.reset()
    assert env.seeds == [4, None]


def test_observations_are_compared_to_the_last_bit():
    one = {"a": (np.array([1.0, np.nan], np.float32), np.array([3])), "b": np.array([0.1], "f4")}
    assert equal(one, one)
    assert equal(one, through_json({"a": list(one["a"]), "b": one["b"]}))
    assert not equal(one, {**one, "b": np.nextafter(one["b"], np.float32(1.0))})
    assert not equal(one, {**one, "b": np.array([np.nan])})
    assert not equal(one, {**one, "a": (np.array([1.0, 2.0], np.float32), one["a"][1])})
    assert not equal(one, {**one, "a": (one["a"][0][:1], one["a"][1])})
    assert not equal(one, {**one, "a": (one["a"][0], np.array([4]))})


# Seeds


def test_each_episode_of_a_single_environment_has_a_seed():
    runs = {}
    for seed in (0, 1):
        env = DrawingEnv()
        take(make(env, seed), 200)
        runs[seed] = env.seeds
        assert env.seeds[0] == seed
        assert len(env.seeds) == len(set(env.seeds)) > 10
        assert all(type(value) is int and 0 <= value < 2**31 for value in env.seeds)
    assert not set(runs[0][1:]) & set(runs[1][1:])


def test_each_environment_in_mode_disabled_has_its_own_seeds():
    env = vector("Disabled")
    take(make(env, seed=0), 100)
    by_env = [one.seeds for one in env.envs]
    assert [seeds[0] for seeds in by_env] == [0, 1, 2]
    everything = [seed for seeds in by_env for seed in seeds]
    assert None not in everything
    assert len(everything) == len(set(everything)) > 30
    # A seed depends on the environment and its episode, not on when the episode begins.
    single = DrawingEnv()
    take(make(single, seed=0), 30)
    assert 3 < len(single.seeds) <= len(by_env[0])
    assert single.seeds == by_env[0][: len(single.seeds)]


@pytest.mark.parametrize("mode", ["single", *MODES])
def test_without_a_seed_runs_differ_and_can_be_repeated(mode):
    def make_env():
        return DrawingEnv() if mode == "single" else vector(mode)

    one, other = make(make_env(), None), make(make_env(), None)
    for collector in (one, other):
        take(collector, 20)
    seeds, others = (set().union(*seeds_of(collector.env)) for collector in (one, other))
    assert not seeds & others - {None}
    assert type(one.get_state()["stepper"]["record"]["entropy"]) is int
    going_on = restored((through_json(one.get_state()), one.replay.get_state()), make_env())
    for collector in (one, going_on):
        take(collector, 20)
    np.testing.assert_equal(state_of(going_on), state_of(one))


def test_reset_takes_the_next_seeds():
    env = vector("Disabled", num_envs=2)
    collector = make(env, seed=7)
    for _ in range(3):
        collector.reset()
    assert [one.seeds[0] for one in env.envs] == [7, 8]
    assert len({*env.envs[0].seeds, *env.envs[1].seeds}) == 6


# The cut


@pytest.mark.parametrize("mode", AUTORESET_MODES)
def test_a_self_resetting_environment_gets_a_new_seed_after_so_many_steps(mode, monkeypatch):
    monkeypatch.setattr(collector_module, "MAX_RECORDED_STEPS", 40)
    env = vector(mode, num_envs=2)
    collector = make(env, seed=0)
    cuts = []  # the environment steps before a seeded reset
    for _ in range(100):
        before = collector.env_steps, len(given(env.envs[0]))
        take(collector)
        if len(given(env.envs[0])) > before[1]:
            cuts.append(before[0])
            assert len(collector.get_state()["stepper"]["record"]["actions"]) == 1
    assert len(cuts) > 3
    # The last step before a cut may have gone one further.
    assert cuts[0] == 0
    assert set(np.diff(cuts)) <= {40, 41}
    assert collector.episodes > 10
    first, second = map(given, env.envs)
    assert first[0] == 0
    assert [seed + 1 for seed in first] == second
    assert len(first) == len(set(first)) == len(cuts)


def given(env):
    return [seed for seed in env.seeds if seed is not None]


@pytest.mark.parametrize("mode", AUTORESET_MODES)
def test_exactly_so_many_steps_are_possible_without_a_cut(mode, monkeypatch):
    monkeypatch.setattr(collector_module, "MAX_RECORDED_STEPS", 40)
    env = vector(mode, lambda: CountingEnv((500,)), 2)
    collector = make(env)
    collector.warm_up(10)
    collector.collect(Linear(env), 30)
    assert collector.env_steps == 40
    assert seeds_of(env) == [[3], [4]]
    collector.warm_up(42)
    assert [len(seeds) for seeds in seeds_of(env)] == [2, 2]
    collector.collect(Linear(env), 38)
    assert [len(seeds) for seeds in seeds_of(env)] == [2, 2]
    collector.collect(Linear(env), 1, exactly=True)
    assert collector.env_steps == 81
    assert [len(seeds) for seeds in seeds_of(env)] == [3, 3]


@pytest.mark.parametrize("mode", ["single", "Disabled"])
def test_environments_with_a_seed_for_each_episode_are_not_cut(mode, monkeypatch):
    monkeypatch.setattr(collector_module, "MAX_RECORDED_STEPS", 40)
    env = CountingEnv((500,)) if mode == "single" else vector(mode, lambda: CountingEnv((500,)), 1)
    take(make(env), 400)
    assert seeds_of(env) == [[3]]


@pytest.mark.parametrize("mode", AUTORESET_MODES)
def test_a_cut_does_not_count_and_ends_windows(mode, monkeypatch):
    monkeypatch.setattr(collector_module, "MAX_RECORDED_STEPS", 5)
    env = vector(mode, lambda: CountingEnv((500, 3)), 1)
    collector = make(env)
    take(collector, 8)  # observations 0 ... 5, the cut, 6 ... 9: the end of an episode of 3 steps
    assert collector.episodes == 1
    assert collector.logs["episode_length"] == 3
    flags = collector.replay.arrays()["flags"]
    assert flags[4] == TRUNCATED
    assert flags[5] == BOUNDARY
    observation, transition, _ = collector.replay.sample(500, gamma=0.5, n_step=3)
    first, after = observation[:, 0], transition["next_observation"][:, 0]
    expected = {0: (3, 0.125), 1: (4, 0.125), 2: (5, 0.125), 3: (5, 0.25), 4: (5, 0.5)}
    expected |= {6: (9, 0.0), 7: (9, 0.0), 8: (9, 0.0)}
    drawn = zip(first.tolist(), after.tolist(), transition["discount"].tolist(), strict=True)
    assert {(start, (end, discount)) for start, end, discount in drawn} == set(expected.items())
