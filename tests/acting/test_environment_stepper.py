import gymnasium as gym
import numpy as np
import pytest
from envs import (
    ChainEnv,
    CountingEnv,
    DictCountingEnv,
    DiscreteCountingEnv,
    Row,
    counter_of,
    counting_fns,
    counting_vector,
    play_by_hand,
)
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from keras_dqn.acting.environment_stepper import EnvironmentStepper
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.env_spaces import num_envs_of, single_spaces

MODES = [mode.value for mode in AutoresetMode]
NEXT_STEP, SAME_STEP, DISABLED = (
    AutoresetMode.NEXT_STEP.value,
    AutoresetMode.SAME_STEP.value,
    AutoresetMode.DISABLED.value,
)


def run(loop, num_steps=25, seed=0):
    """Steps with random actions; returns each environment's transitions and the rows left out."""
    rng = np.random.default_rng(seed)
    rows = [[] for _ in range(loop.num_envs)]
    left_out = 0
    loop.reset()
    for _ in range(num_steps):
        step = loop.step(rng.integers(loop.action_spec.num_actions, size=loop.num_envs))
        before, after = counter_of(step.observation), counter_of(step.next_observation)
        left_out += np.count_nonzero(~step.stepped)
        for e in np.flatnonzero(step.stepped):
            action = int(step.action[e])
            ends = bool(step.terminated[e]), bool(step.truncated[e])
            rows[e].append(Row(int(before[e]), action, step.reward[e], *ends, int(after[e])))
    return rows, left_out


def assert_equals_stepping_by_hand(rows, make_envs):
    for env_rows, make_env in zip(rows, make_envs, strict=True):
        assert env_rows == play_by_hand(make_env(), [row.action for row in env_rows])
        assert any(row.terminated or row.truncated for row in env_rows)


@pytest.mark.parametrize("start", [0, 5], ids=["start 0", "start 5"])
@pytest.mark.parametrize("in_place", [False, True], ids=["new array", "same array"])
@pytest.mark.parametrize("cls", [CountingEnv, DictCountingEnv, DiscreteCountingEnv])
def test_single_environment_equals_stepping_by_hand(cls, in_place, start):
    make_env = counting_fns(1, cls=cls, in_place=in_place, start=start)
    rows, left_out = run(EnvironmentStepper(make_env[0]()))
    assert_equals_stepping_by_hand(rows, make_env)
    assert left_out == 0
    assert len(rows[0]) == 25


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "no copy"])
@pytest.mark.parametrize("cls", [CountingEnv, DictCountingEnv, DiscreteCountingEnv])
@pytest.mark.parametrize("mode", MODES)
def test_vector_environment_equals_stepping_each_by_hand(mode, cls, copy):
    loop = EnvironmentStepper(counting_vector(mode, copy=copy, cls=cls, start=2))
    rows, left_out = run(loop)
    assert_equals_stepping_by_hand(rows, counting_fns(cls=cls, start=2))
    ends = sum(row.terminated or row.truncated for env_rows in rows for row in env_rows[:-1])
    assert (left_out > 0) == (mode == NEXT_STEP)
    assert sum(map(len, rows)) + left_out == 3 * 25
    if mode == NEXT_STEP:
        assert left_out == ends


@pytest.mark.parametrize("mode", [NEXT_STEP, DISABLED])
def test_environments_that_write_into_the_same_array(mode):
    # In SAME_STEP Gymnasium itself hands out the overwritten array as the final observation.
    rows, _ = run(EnvironmentStepper(counting_vector(mode, copy=False, in_place=True)))
    assert_equals_stepping_by_hand(rows, counting_fns())


@pytest.mark.parametrize("mode", MODES)
def test_async_vector_environment(mode):
    env = counting_vector(mode, vector_cls=AsyncVectorEnv, cls=DictCountingEnv)
    try:
        rows, _ = run(EnvironmentStepper(env))
    finally:
        env.close()
    assert_equals_stepping_by_hand(rows, counting_fns())


@pytest.mark.parametrize("mode", MODES)
def test_reset_in_the_middle_starts_new_episodes(mode):
    loop = EnvironmentStepper(counting_vector(mode))
    run(loop, num_steps=1)
    # After one more step the second environment (length 2) has ended: nothing of it may remain.
    loop.step(np.zeros(3, np.int64))
    loop.reset()
    assert loop.step(np.zeros(3, np.int64)).stepped.all()


def test_observation_is_where_the_next_step_starts():
    loop = EnvironmentStepper(CountingEnv(lengths=(2,)))
    loop.reset()
    seen = [int(loop.observation[0, 0])]
    for _ in range(4):
        step = loop.step(np.array([0]))
        seen.append((int(step.next_observation[0, 0]), int(loop.observation[0, 0])))
    # Counters: 0 1 2 | 3 4 5 | 6; final observations are 2 and 5.
    assert seen == [0, (1, 1), (2, 3), (4, 4), (5, 6)]


def test_seed_reaches_the_environment_once():
    env = CountingEnv(lengths=(1,))
    loop = EnvironmentStepper(env)
    loop.reset(7)
    loop.step(np.array([0]))
    assert env.seeds == [7, None]


@pytest.mark.parametrize("vectorized", [False, True])
def test_dtypes_and_shapes_of_a_step(vectorized):
    env = counting_vector(SAME_STEP, 1) if vectorized else CountingEnv()
    loop = EnvironmentStepper(env)
    loop.reset()
    step = loop.step(np.array([1]))
    assert step.observation.shape == step.next_observation.shape == (1, 1)
    assert [array.shape for array in step[1:5]] == [(1,)] * 4
    assert [array.dtype for array in step[1:5]] == [np.int64, np.float64, bool, bool]


def test_environment_without_autoreset_metadata_warns_and_is_next_step():
    env = counting_vector(NEXT_STEP)
    del env.metadata["autoreset_mode"]
    with pytest.warns(UserWarning, match="does not say its autoreset mode"):
        loop = EnvironmentStepper(env)
    assert_equals_stepping_by_hand(run(loop)[0], counting_fns())


def test_autoreset_mode_may_be_its_name():
    env = counting_vector(SAME_STEP)
    env.metadata["autoreset_mode"] = "SameStep"
    assert_equals_stepping_by_hand(run(EnvironmentStepper(env))[0], counting_fns())


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match=r"must be gymnasium.spaces.Discrete.*Received.*Box"):
        EnvironmentStepper(gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="Discrete"):
        ActionSpec(gym.spaces.MultiDiscrete([[2, 2]]))


@pytest.mark.parametrize("env", ["CartPole-v1", None, CountingEnv], ids=["id", "None", "class"])
def test_what_is_no_environment_is_refused(env):
    with pytest.raises(TypeError, match=r"`env` must be a gymnasium.Env or.*Received: env="):
        EnvironmentStepper(env)


def test_action_values_that_do_not_fit_are_refused():
    loop = EnvironmentStepper(counting_vector(SAME_STEP, 2))
    loop.action_spec.check_values(np.zeros((2, 3)), 2)
    with pytest.raises(ValueError, match=r"each of the 3 actions.*shape=\(2, 4\)"):
        loop.action_spec.check_values(np.zeros((2, 4)), 2)


def test_spaces_and_number_of_environments():
    env, vector = CountingEnv(), counting_vector(SAME_STEP)
    assert (num_envs_of(env), num_envs_of(vector)) == (1, 3)
    assert single_spaces(env) == single_spaces(vector)
    assert single_spaces(env) == (env.observation_space, env.action_space)


def test_chain_q_star_solves_the_bellman_equation():
    env, gamma = ChainEnv(length=4), 0.9
    value = np.append(env.q_star(gamma).max(axis=1), 0.0)
    reward = [0.0, 0.0, 0.0, 1.0]
    for cell in range(4):
        stay, right = env.q_star(gamma)[cell]
        assert stay == pytest.approx(gamma * value[cell])
        assert right == pytest.approx(reward[cell] + gamma * value[cell + 1])


def test_chain_pays_at_the_goal_and_truncates_at_its_limit():
    env = ChainEnv(length=2, time_limit=3)
    env.reset()
    assert env.step(1)[1:4] == (0.0, False, False)
    assert env.step(1)[1:4] == (1.0, True, False)
    env.reset()
    assert [env.step(0)[1:4] for _ in range(3)][-1] == (0.0, False, True)


def test_vector_of_gymnasium_make_vec_states_its_mode():
    env = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    assert isinstance(env.unwrapped, SyncVectorEnv)
    assert EnvironmentStepper(env).num_envs == 2
