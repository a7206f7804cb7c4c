"""Masks from `info` in observations, and who respects them: an observation tells its mask."""

import pickle

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import keras_dqn
from keras_dqn import ActionMaskObservation, EpsilonGreedy, EpsilonZGreedy
from keras_dqn.layers import DuelingHead

START = 5  # of the action space


def mask_for(number):
    """Of 4 actions, at least one and at most three are allowed."""
    return np.array([number % 2 == i % 2 or number % 3 == i for i in range(4)], np.int8)


class Numbered(gym.Env):
    """Its observation is a number that never comes again, from which its mask follows.

    The last observation of an episode has a mask of zeros, as in PettingZoo. A forbidden action is
    an error.
    """

    observation_space = Box(-1e6, 1e6, (1,), np.float32)
    action_space = Discrete(4, start=START)

    def __init__(self, first=0, length=5):
        self.number, self.length = first, length

    def _observe(self, last=False):
        self.number += 1
        number = -self.number if last else self.number
        self.mask = mask_for(number) * (not last)
        return np.array([number], np.float32), {"action_mask": self.mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observe()

    def step(self, action):
        assert self.mask[action - START], "a forbidden action"
        self.t += 1
        last = self.t == self.length
        observation, info = self._observe(last)
        return observation, 1.0, last, False, info


def makers(num_envs):
    return [lambda i=i: Numbered(10_000 * i, 4 + i) for i in range(num_envs)]


def environments(mode):
    """As a wrapper of each environment, and around a vector environment."""
    inside = [lambda make=make: ActionMaskObservation(make()) for make in makers(3)]
    return {
        "inside": SyncVectorEnv(inside, autoreset_mode=mode),
        "async": AsyncVectorEnv(inside, autoreset_mode=mode),
        "around": ActionMaskObservation(SyncVectorEnv(makers(3), autoreset_mode=mode)),
    }


def new_agent(kind=keras_dqn.DQN, **kwargs):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "relu"), DuelingHead(4)])
    agent = kind(network, action_mask="action_mask", **kwargs)
    agent.compile(keras.optimizers.Adam(1e-3), steps_per_execution=4, jit_compile=False)
    return agent


def assert_masks_belong(observation):
    numbers = observation["observation"][:, 0]
    expected = [mask_for(n) if n > 0 else np.zeros(4) for n in numbers]
    np.testing.assert_array_equal(observation["action_mask"], expected)


RULES = {
    "epsilon": lambda: EpsilonGreedy(0.5),
    "epsilon z": lambda: EpsilonZGreedy(0.5, mu=1.5),
    "boltzmann": lambda: keras_dqn.Boltzmann(5.0),
    "greedy": keras_dqn.Greedy,
}


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(
    "where", ["around", *(pytest.param(w, marks=pytest.mark.hard) for w in ("inside", "async"))]
)
def test_every_stored_mask_is_the_one_of_its_observation(mode, where):
    """Also in warm-up and evaluation no action is forbidden: the environment would raise."""
    env = environments(mode)[where]
    test_env = environments(mode)[where]
    replay = keras_dqn.ReplayBuffer.from_env(env, 500)
    collect = keras_dqn.CollectTransitions(
        env, replay, exploration=EpsilonGreedy(0.5), warmup_steps=60, seed=1
    )
    evaluate = keras_dqn.EvaluatePolicy(test_env, episodes=4)
    agent = new_agent()
    callbacks = [collect, keras_dqn.SoftTargetUpdate(0.1), evaluate]
    agent.fit(
        replay.dataset(16, n_step=2), epochs=2, steps_per_epoch=40, callbacks=callbacks, verbose=0
    )
    observation, transition, _ = replay.sample(2_000, n_step=2)
    assert_masks_belong(observation)
    assert_masks_belong(transition["next_observation"])
    ended = transition["next_observation"]["observation"][:, 0] < 0
    assert 0.2 < ended.mean() < 0.9
    np.testing.assert_array_equal(transition["discount"] == 0, ended)
    chosen = observation["action_mask"][np.arange(2_000), transition["action"]]
    assert chosen.all()
    env.close()
    test_env.close()


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_takes_a_forbidden_action(rule):
    env = ActionMaskObservation(SyncVectorEnv(makers(3)))
    replay = keras_dqn.ReplayBuffer.from_env(env, 3_000)
    exploration = RULES[rule]()
    collector = keras_dqn.Collector(
        env, replay, exploration=exploration, seed=0, action_mask="action_mask"
    )
    collector.warm_up(100)
    policy = new_agent().policy()
    collector.collect(policy, 1_500)
    observation, transition, _ = replay.sample(3_000)
    allowed = observation["action_mask"]
    taken = allowed[np.arange(3_000), transition["action"]]
    assert taken.all()
    if rule != "greedy":
        assert set(transition["action"]) == {0, 1, 2, 3}


def test_noise_and_masks():
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((1,)), keras_dqn.layers.NoisyDense(4)])
    agent = keras_dqn.DQN(network, action_mask="action_mask")
    env = ActionMaskObservation(SyncVectorEnv(makers(3)))
    replay = keras_dqn.ReplayBuffer.from_env(env, 1_000)
    collector = keras_dqn.Collector(env, replay, exploration=keras_dqn.NoisyGreedy(), seed=0)
    collector.collect(agent.policy(), 300)
    assert len(replay) == collector.env_steps >= 298


def observation_of(numbers):
    masks = np.array([mask_for(n) for n in numbers])
    return {"action_mask": masks, "observation": np.array(numbers, np.float32)[:, None]}


@pytest.mark.parametrize("kind", ["policy", "host policy", "agent", "pickled"])
def test_who_acts_takes_the_best_allowed_action(kind):
    agent = new_agent()
    observation = observation_of(range(1, 40))
    q_values = agent.q_values(agent.network(observation["observation"])).numpy()
    mask = observation["action_mask"]
    best = np.where(mask == 1, q_values, -np.inf).argmax(axis=1)
    assert (q_values.argmax(axis=1) != best).any()
    if kind == "agent":
        agent.action_start = START
        np.testing.assert_array_equal(agent.act(observation), best + START)
        return
    policy = agent.policy()
    if kind == "host policy":
        policy = policy.host_policy(observation)
    if kind == "pickled":
        policy = pickle.loads(pickle.dumps(policy))
    values = policy.action_values(observation)
    np.testing.assert_array_equal(values.argmax(axis=1), best)
    np.testing.assert_array_equal(values == -np.inf, mask == 0)
    np.testing.assert_allclose(values[mask == 1], q_values[mask == 1], atol=1e-5)


def test_an_exported_policy_takes_the_mask(tmp_path):
    agent = new_agent()
    agent.action_start = START
    agent.export_policy(tmp_path / "policy", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "policy")
    observation = observation_of(range(1, 30))
    actions = loaded.serve({name: tf.constant(array) for name, array in observation.items()})
    np.testing.assert_array_equal(actions, agent.act(observation))


def test_a_mask_of_zeros_is_refused_where_an_action_is_chosen():
    agent = new_agent()
    observation = observation_of([1, 2, 3])
    observation["action_mask"][1] = 0
    message = r"must allow at least one action .* Received: only zeros in the rows \[1\]"
    for act in (agent.act, agent.policy()):
        with pytest.raises(ValueError, match=message):
            act(observation)


class Stuck(Numbered):
    """In its third observation, no action is allowed, though the episode goes on."""

    def _observe(self, last=False):
        observation, info = super()._observe(last)
        return observation, {"action_mask": info["action_mask"] * (observation[0] != 3)}


@pytest.mark.parametrize("at_random", [True, False])
def test_a_collector_refuses_a_mask_of_zeros(at_random):
    env = ActionMaskObservation(Stuck())
    replay = keras_dqn.ReplayBuffer.from_env(env, 100)
    collector = keras_dqn.Collector(
        env, replay, exploration=EpsilonGreedy(0.0), seed=0, action_mask="action_mask"
    )
    policy = new_agent().policy()
    with pytest.raises(ValueError, match="must allow at least one action"):
        collector.warm_up(10) if at_random else collector.collect(policy, 10)
    assert len(replay) == 2


def test_a_repeated_action_that_becomes_forbidden_is_drawn_anew():
    explore, rng = EpsilonZGreedy(1.0, mu=1.01), np.random.default_rng(0)
    values = np.zeros((200, 3))
    first = explore(values, rng)
    left = explore.get_state()["steps_left"]
    values[:, 0] = -np.inf
    second = explore(values, rng)
    assert (second != 0).all()
    goes_on = (first != 0) & (left > 0)
    assert goes_on.sum() > 50
    np.testing.assert_array_equal(second[goes_on], first[goes_on])
    drawn_anew = (first == 0) & (left > 0)
    assert set(second[drawn_anew]) == {1, 2}
    third = explore(values, rng)
    stays = drawn_anew & (left > 2)
    np.testing.assert_array_equal(third[stays], second[stays])


def test_fit_refuses_a_key_without_a_mask():
    for space in (Box(0, 1, (1,)), Dict(observation=Box(0, 1, (1,)), action_mask=Box(0, 1, (4,)))):
        replay = keras_dqn.ReplayBuffer(10, space, Discrete(4))
        with pytest.raises(
            ValueError, match=r"`action_mask` must be the key of an entry Box\(0, 1"
        ):
            new_agent().fit(replay.dataset(2), epochs=1, steps_per_epoch=1, verbose=0)
    with pytest.raises(TypeError, match="`action_mask` must be the key of the mask, or None"):
        keras_dqn.DQN(keras.layers.Dense(2), action_mask=True)


def test_a_collector_refuses_a_key_without_a_mask():
    env = gym.make("CartPole-v1")
    replay = keras_dqn.ReplayBuffer.from_env(env, 100)
    with pytest.raises(ValueError, match="`action_mask` must be the key of an entry"):
        keras_dqn.Collector(env, replay, exploration=EpsilonGreedy(0.1), action_mask="mask")


class Silent(gym.Env):
    observation_space, action_space = Box(0, 1, (1,), np.float32), Discrete(2)

    def __init__(self, info):
        self.info = info

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), self.info


@pytest.mark.parametrize("mask", [None, [1, 0, 1], [0.5, 0.5], "all"])
def test_infos_without_a_mask_are_refused(mask):
    info = {} if mask is None else {"action_mask": np.array(mask)}
    with pytest.raises(ValueError, match=r'`info\["action_mask"\]` must be an integer array'):
        ActionMaskObservation(Silent(info)).reset()


def test_one_silent_environment_of_several_is_named():
    infos = [{"action_mask": np.ones(2, np.int8)}, {}]
    env = SyncVectorEnv([lambda info=info: Silent(info) for info in infos])
    with pytest.raises(ValueError, match=r"Received: none of the environments \[1\]"):
        ActionMaskObservation(env).reset()


def test_other_action_spaces_are_refused():
    env = Silent({})
    env.action_space = Box(0, 1, (2,))
    with pytest.raises(ValueError, match=r"must be gymnasium\.spaces\.Discrete"):
        ActionMaskObservation(env)


def test_taxi():
    """Gymnasium's own masks, through `make_vec`."""
    name = "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3"  # Gymnasium 1.1
    env = gym.make_vec(
        name, num_envs=3, vectorization_mode="sync", wrappers=[ActionMaskObservation]
    )
    observation, info = env.reset(seed=0)
    np.testing.assert_array_equal(observation["action_mask"], info["action_mask"])
    assert env.single_observation_space["action_mask"].dtype == np.int8


def test_saving_keeps_the_key(tmp_path):
    agent = new_agent(double=True)
    observation = observation_of(range(1, 20))
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert loaded.action_mask == "action_mask"
    np.testing.assert_array_equal(loaded.act(observation), agent.act(observation))


def test_a_mask_of_branches():
    """A tuple, as `MultiDiscrete.sample` takes it, is padded; missing choices do not help."""

    class Branches(Silent):
        action_space = gym.spaces.MultiDiscrete([3, 2])

    masks = (np.array([0, 1, 1], np.int8), np.array([1, 0], np.int8))
    env = ActionMaskObservation(Branches({"action_mask": masks}))
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation["action_mask"], [[0, 1, 1], [1, 0, 0]])
    network = keras_dqn.networks.mlp(Branches.observation_space, (2, 3))
    agent = keras_dqn.DQN(network, action_mask="action_mask")
    agent.branch_sizes = np.array([3, 2])
    assert agent.act(observation).tolist()[1] == 0
    observation["action_mask"][1] = [0, 0, 1]
    for act in (agent.act, lambda o: agent.policy()({k: v[None] for k, v in o.items()})):
        with pytest.raises(ValueError, match="must allow at least one action"):
            act(observation)


class FinalArray(gym.vector.VectorEnv):
    """Mode SAME_STEP; all final observations are one array."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    num_envs = 2
    single_observation_space, single_action_space = Box(0, 9, (1,), np.float32), Discrete(2)
    observation_space = Box(0, 9, (2, 1), np.float32)
    action_space = gym.spaces.MultiDiscrete([2, 2])
    infos = {"action_mask": np.array([[1, 0], [0, 1]], np.int8)}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        return np.zeros((2, 1), np.float32), dict(self.infos)

    def step(self, actions):
        ended, final = np.array([True, False]), np.full((2, 1), 7, np.float32)
        given = {"action_mask": np.array([[0, 1], [0, 0]]), "_action_mask": ended}
        info = {**self.infos, "final_obs": final, "final_info": given}
        return np.ones((2, 1), np.float32), np.ones(2), ended, ~ended & False, info


def test_final_observations_in_one_array():
    env = ActionMaskObservation(FinalArray())
    env.reset()
    observation, *_, info = env.step(np.zeros(2, np.int64))
    assert observation["action_mask"].tolist() == [[1, 0], [0, 1]]
    assert info["final_obs"][0]["observation"].tolist() == [7]
    assert info["final_obs"][0]["action_mask"].tolist() == [0, 1]
    assert info["final_obs"][1] is None
