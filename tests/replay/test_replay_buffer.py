import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from keras_dqn import ReplayBuffer

PAIR = Box(-100.0, 100.0, (2,))


def make(capacity=20, observation_space=PAIR, action_space=None, **kwargs):
    kwargs.setdefault("seed", 0)
    return ReplayBuffer(capacity, observation_space, action_space or Discrete(3), **kwargs)


def steps_of_two(*, where=None, **changes):
    """One step of two environments, as `add` takes it, with some arguments changed."""
    step = {
        "observation": np.array([[1, 2], [3, 4]], np.float32),
        "action": np.array([0, 2]),
        "reward": np.array([0.5, -0.5]),
        "terminated": np.array([False, True]),
        "truncated": np.array([False, False]),
        "next_observation": np.array([[5, 6], [7, 8]], np.float32),
        "where": where,
    }
    return step | changes


def numbered(replay, numbers, **end):
    """Adds one step from each number to the next to a buffer of Discrete observations."""
    end = {"terminated": False, "truncated": False} | end
    for number in numbers:
        replay.add(number, 0, 0.0, end["terminated"], end["truncated"], number + 1)


def starts(replay, **kwargs):
    return set(replay.sample(400, **kwargs)[0].tolist())


def assert_same_draws(one, other):
    for a, b in zip(flat(one.sample(200)), flat(other.sample(200)), strict=True):
        np.testing.assert_array_equal(a, b)


def flat(batch):
    observation, transition, weight = batch
    return [observation, *(transition[key] for key in sorted(transition)), weight]


def test_sample_is_the_triple_of_fit():
    replay = make(num_envs=2)
    replay.add(**steps_of_two())
    observation, transition, weight = replay.sample(50, gamma=0.9)
    assert transition.keys() == {"action", "reward", "discount", "next_observation"}
    for array, dtype, shape in [
        (observation, np.float32, (50, 2)),
        (transition["action"], np.int32, (50,)),
        (transition["reward"], np.float32, (50,)),
        (transition["discount"], np.float32, (50,)),
        (transition["next_observation"], np.float32, (50, 2)),
        (weight, np.float32, (50,)),
    ]:
        assert array.dtype == dtype
        assert array.shape == shape
    second = observation[:, 0] == 3
    assert 0 < second.sum() < 50
    np.testing.assert_array_equal(observation, np.where(second[:, None], [3, 4], [1, 2]))
    np.testing.assert_array_equal(transition["action"], np.where(second, 2, 0))
    np.testing.assert_array_equal(transition["reward"], np.where(second, -0.5, 0.5))
    np.testing.assert_allclose(transition["discount"], np.where(second, 0.0, 0.9))
    np.testing.assert_array_equal(
        transition["next_observation"], np.where(second[:, None], [7, 8], [5, 6])
    )
    np.testing.assert_array_equal(weight, 1.0)


def test_empty_batch_shows_shapes_and_dtypes():
    space = Dict({"image": Box(0, 255, (2, 2), np.uint8), "gear": Discrete(3)})
    observation, transition, weight = make(observation_space=space).empty_batch()
    for part in (observation, transition["next_observation"]):
        assert part["image"].shape == (0, 2, 2)
        assert part["image"].dtype == np.uint8
        assert part["gear"].shape == (0,)
        assert part["gear"].dtype == np.int32
    assert transition["action"].dtype == np.int32
    assert weight.shape == (0,)


@pytest.mark.parametrize(
    ("space", "observation", "following", "dtype"),
    [
        (Discrete(5, start=2), 2, 6, np.int32),
        (Box(0, 255, (3,), np.uint8), np.uint8([255, 0, 1]), np.uint8([2, 3, 255]), np.uint8),
        (Box(-1, 1, (2,), np.float64), [0.1, 0.2], [0.3, 0.4], np.float64),
    ],
    ids=["discrete", "uint8", "float64"],
)
def test_observations_keep_dtype_and_value(space, observation, following, dtype):
    replay = make(observation_space=space)
    replay.add(observation, 0, 0.0, False, False, following)
    drawn, transition, _ = replay.sample(3)
    for array, value in ((drawn, observation), (transition["next_observation"], following)):
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, np.broadcast_to(value, (3, *space.shape)))


def test_nested_dict_observations():
    space = Dict({"a": Dict({"b": Box(0, 9, (2,)), "c": Discrete(9)}), "d": Box(0, 9, ())})
    replay = make(observation_space=space, num_envs=2)
    before = {"a": {"b": np.array([[1, 2], [3, 4]]) * 1.0, "c": np.array([1, 3])}, "d": [1.0, 3.0]}
    after = {"a": {"b": np.array([[5, 6], [7, 8]]) * 1.0, "c": np.array([5, 7])}, "d": [5.0, 7.0]}
    replay.add(before, [0, 1], [0.0, 0.0], [False, False], [False, False], after)
    observation, transition, _ = replay.sample(60)
    following = transition["next_observation"]
    assert observation.keys() == {"a", "d"}
    assert observation["a"].keys() == {"b", "c"}
    assert set(observation["d"].tolist()) == {1.0, 3.0}
    for part, first in ((observation, observation["d"]), (following, observation["d"] + 4)):
        np.testing.assert_array_equal(part["d"], first)
        np.testing.assert_array_equal(part["a"]["c"], first)
        np.testing.assert_array_equal(part["a"]["b"], np.stack([first, first + 1], 1))


def test_a_change_in_any_leaf_of_a_dict_is_a_reset():
    replay = make(observation_space=Dict({"a": Discrete(9), "b": Discrete(9)}))
    replay.add({"a": 0, "b": 0}, 0, 1.0, False, False, {"a": 1, "b": 1})
    replay.add({"a": 1, "b": 2}, 0, 1.0, False, False, {"a": 3, "b": 3})
    observation, transition, _ = replay.sample(50, n_step=2)
    assert set(observation["a"].tolist()) == {0}
    assert set(transition["next_observation"]["b"].tolist()) == {1}


def test_actions_are_those_of_the_space_and_drawn_from_zero():
    replay = make(action_space=Discrete(3, start=5))
    replay.add(np.zeros(2), 7, 0.0, True, False, np.ones(2))
    assert set(replay.sample(5)[1]["action"].tolist()) == {2}


def test_observations_are_stored_once_and_copied():
    replay = make(1_000, Box(0, 255, (84, 84), np.uint8))
    assert sum(leaf.nbytes for leaf in replay._rings.observations) == 1_001 * 84 * 84
    observation = np.ones((84, 84), np.uint8)
    replay.add(observation, 0, 0.0, False, False, observation)
    observation[:] = 2
    drawn, transition, _ = replay.sample(1)
    np.testing.assert_array_equal(drawn, 1)
    np.testing.assert_array_equal(transition["next_observation"], 1)


def test_length_counts_transitions_and_capacity_counts_rows():
    replay = make(5, Discrete(100))
    assert len(replay) == 0
    numbered(replay, range(4))
    assert len(replay) == 4
    numbered(replay, [4], truncated=True)  # six rows: the oldest goes
    assert len(replay) == 4
    assert starts(replay) == {1, 2, 3, 4}
    numbered(replay, [50, 51])  # the final observation keeps its row
    assert len(replay) == 4
    assert starts(replay) == {3, 4, 50, 51}
    numbered(replay, range(52, 60))
    assert len(replay) == 5
    assert starts(replay) == {55, 56, 57, 58, 59}
    assert replay.capacity == 5


def test_capacity_is_shared_by_the_environments():
    replay = make(7, Discrete(100), num_envs=2)
    for t in range(10):
        replay.add([t, 50 + t], [0, 0], [0.0] * 2, [False] * 2, [False] * 2, [t + 1, 51 + t])
    assert len(replay) == 6
    assert starts(replay) == {7, 8, 9, 57, 58, 59}


def test_where_skips_environments():
    replay = make(num_envs=2)
    replay.add(**steps_of_two(where=[False, True]))
    assert len(replay) == 1
    assert set(replay.sample(50)[0][:, 0].tolist()) == {3.0}
    replay.add(**steps_of_two(where=[False, False]))
    assert len(replay) == 1


@pytest.mark.parametrize("n_step", [1, 3])
def test_same_seed_gives_the_same_draws(n_step):
    one, other, third = make(seed=3), make(seed=3), make(seed=4)
    for replay in (one, other, third):
        for t in range(15):
            replay.add([t, t], 0, t, t % 5 == 4, False, [t + 1, t + 1])
    draws = [flat(replay.sample(50, n_step=n_step)) for replay in (one, other, third)]
    for a, b in zip(draws[0], draws[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (draws[0][0] != draws[2][0]).any()


def test_draws_leave_numpys_global_generator_alone():
    replay = make()
    replay.add([0, 0], 0, 0.0, False, False, [1, 1])
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    replay.sample(5)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("vector", [False, True], ids=["single", "vector"])
def test_from_env(vector):
    env = gym.make_vec("CartPole-v1", num_envs=3) if vector else gym.make("CartPole-v1")
    replay = ReplayBuffer.from_env(env, 30, seed=9)
    single = gym.make("CartPole-v1")
    assert replay.num_envs == (3 if vector else 1)
    assert replay.observation_space == single.observation_space
    assert replay.action_space == single.action_space
    assert (replay.capacity, replay.seed) == (30, 9)
    assert ReplayBuffer.from_env(env, 30, num_envs=5).num_envs == 5
    env.close()


BAD = np.array([[0, 0], [np.nan, 0]], np.float32)
REFUSED_STEPS = {
    "observation_shape": ({"observation": np.zeros((2, 3))}, "`observation` must have shape"),
    "observation_dtype": ({"observation": np.zeros((2, 2), "U1")}, "`observation` must have a dty"),
    "observation_nan": ({"observation": BAD}, "`observation` must be finite"),
    "next_shape": ({"next_observation": np.zeros(2)}, "`next_observation` must have shape"),
    "next_dtype": ({"next_observation": np.zeros((2, 2), complex)}, "dtype=complex128"),
    "next_nan": ({"next_observation": BAD}, "`next_observation` must be finite"),
    "next_infinite": ({"next_observation": np.full((2, 2), 1e300)}, "must be finite"),
    "action_shape": ({"action": np.zeros(3, int)}, r"`action` must have shape \(2,\)"),
    "action_dtype": ({"action": np.zeros(2)}, "`action` must be integer.*dtype=float64"),
    "action_below": ({"action": [0, -1]}, r"`action` must be in Discrete\(3\)"),
    "action_above": ({"action": [0, 3]}, r"Received: action=\[0, 3\]"),
    "reward_shape": ({"reward": 1.0}, r"`reward` must have shape \(2,\)"),
    "reward_dtype": ({"reward": [1j, 0]}, "`reward` must be a real number"),
    "reward_nan": ({"reward": [0.0, np.nan]}, "`reward` must be finite"),
    "reward_infinite": ({"reward": [0.0, -np.inf]}, "`reward` must be finite"),
    "reward_infinite_in_float32": ({"reward": [0.0, 1e39]}, "`reward` must be finite in float32"),
    "terminated_shape": ({"terminated": True}, "`terminated` must have shape"),
    "terminated_dtype": ({"terminated": [0, 1]}, "`terminated` must be boolean"),
    "truncated_shape": ({"truncated": [True]}, "`truncated` must have shape"),
    "truncated_dtype": ({"truncated": [0.0, 1.0]}, "`truncated` must be boolean"),
    "where_shape": ({"where": [True]}, "`where` must have shape"),
    "where_dtype": ({"where": [1, 1]}, "`where` must be boolean"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED_STEPS.values(), ids=REFUSED_STEPS.keys())
@pytest.mark.parametrize("running", [False, True], ids=["new", "running"])
def test_a_refused_step_changes_nothing(running, changes, message):
    replay, twin = make(num_envs=2), make(num_envs=2)
    first = steps_of_two(observation=np.zeros((2, 2)), next_observation=np.eye(2))
    if running:
        replay.add(**first)
        twin.add(**first)
    before = contents(replay)
    with pytest.raises(ValueError, match=message):
        replay.add(**steps_of_two(**changes))
    assert contents(replay) == before
    replay.add(**steps_of_two())
    twin.add(**steps_of_two())
    assert_same_draws(replay, twin)


def contents(replay):
    return {
        name: [part.tobytes() if isinstance(part, np.ndarray) else part for part in parts]
        for name, value in vars(replay._rings).items()
        for parts in [value if isinstance(value, list) else [value]]
    }


def test_numbers_outside_a_box_are_stored_with_one_warning():
    replay = make(observation_space=Box(-1.0, 1.0, (2,)))
    with pytest.warns(UserWarning, match="`next_observation` is outside the bounds") as warned:
        replay.add(np.zeros(2), 0, 0.0, False, False, [3.0, -4.0])
    assert [warning.filename for warning in warned] == [__file__]
    replay.add([3.0, -4.0], 0, 0.0, False, False, [0.0, 5.0])
    following = replay.sample(50)[1]["next_observation"]
    assert set(map(tuple, following.tolist())) == {(3.0, -4.0), (0.0, 5.0)}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"capacity": 3, "num_envs": 4}, "`capacity` must hold.*capacity=3, num_envs=4"),
        ({"num_envs": 0}, "`num_envs` must be at least 1. Received: num_envs=0"),
        ({"action_space": Box(-1, 1, (2,))}, "`action_space` must be gymnasium.spaces.Discrete"),
        ({"observation_space": gym.spaces.Text(4)}, "`observation_space` must be a Box"),
    ],
    ids=["capacity", "num_envs", "continuous_actions", "text_observations"],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


@pytest.mark.parametrize("method", ["sample", "dataset"])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1. Received: batch_size=0"),
        ({"gamma": 1.5}, r"`gamma` must be in \[0, 1\]. Received: gamma=1.5"),
        ({"gamma": -0.1}, "Received: gamma=-0.1"),
        ({"gamma": np.nan}, "Received: gamma=nan"),
        ({"n_step": 0}, "`n_step` must be at least 1. Received: n_step=0"),
    ],
    ids=["batch_size", "gamma_above", "gamma_below", "gamma_nan", "n_step"],
)
def test_sampling_arguments_outside_their_range_are_refused(method, kwargs, message):
    replay = make()
    replay.add([0, 0], 0, 0.0, False, False, [1, 1])
    with pytest.raises(ValueError, match=message):
        getattr(replay, method)(**{"batch_size": 1} | kwargs)


def test_nothing_to_draw_is_an_error():
    replay = make(observation_space=Discrete(100))
    with pytest.raises(RuntimeError, match="buffer is empty"):
        replay.sample(1)
    numbered(replay, [0, 1])
    with pytest.raises(RuntimeError, match=r"window of 3 steps yet.*n_step=3, stored=2"):
        replay.sample(1, n_step=3)
    numbered(replay, [2])
    assert starts(replay, n_step=3) == {0}
