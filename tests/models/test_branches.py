"""MultiDiscrete actions: D branches with choices of their own, which share a target."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import keras_dqn
from keras_dqn.layers import DuelingHead

RULE = keras_dqn.Munchausen(alpha=0.8, temperature=0.4, clip=-0.7)
RULES = {"neither": {}, "double": {"double": True}, "munchausen": {"munchausen": RULE}}
N = 5
KINDS = {
    "plain": (keras_dqn.DQN, {}),
    "c51": (keras_dqn.CategoricalDQN, {"num_atoms": N, "v_min": -2.0, "v_max": 4.0}),
    "hl_gauss": (keras_dqn.HLGaussDQN, {"num_bins": N, "v_min": -2.0, "v_max": 4.0}),
    "quantiles": (keras_dqn.QuantileDQN, {"num_quantiles": N}),
}
BY_KIND = pytest.mark.parametrize("kind", KINDS)
BY_RULE = pytest.mark.parametrize("rule", RULES)


def table(cells, shape):
    layers = [keras.layers.Embedding(cells, int(np.prod(shape))), keras.layers.Reshape(shape)]
    return keras.Sequential([keras.Input((), dtype="int32"), *layers])


def agent_with(online, target, kind="plain", **kwargs):
    """An agent whose networks are tables `[cells, ...]`."""
    cls, sizes = KINDS[kind]
    agent = cls(table(len(online), np.shape(online)[1:]), **sizes, **kwargs)
    for network, values in ((agent.network, online), (agent.target_network, target)):
        network.layers[0].embeddings.assign(np.reshape(values, (len(values), -1)))
    return agent


def batch_of(action, observation, following, reward, discount):
    transition = {
        "action": np.array(action, np.int32),
        "reward": np.array(reward, np.float32),
        "discount": np.array(discount, np.float32),
        "next_observation": np.array(following, np.int32),
    }
    return np.array(observation, np.int32), transition


def test_by_hand_where_the_batch_is_as_large_as_the_number_of_branches():
    """B = D = 2. Were weights expanded over branches, the loss would be another one."""
    online = [[[1.0, 2.0], [0.0, 4.0]], [[3.0, 1.0], [2.0, 2.5]], [[0.0, 9.0], [9.0, 0.0]]]
    target = [[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[2.0, 6.0], [1.0, 3.0]]]
    observation, transition = batch_of([[1, 0], [0, 1]], [0, 1], [2, 2], [1.0, 2.0], [0.5, 0.0])
    agent = agent_with(online, target)
    # The best next values are 6 and 3, their mean is 4.5: 1 + 0.5 * 4.5 and 2 + 0.
    y = agent.compute_target(observation, transition)
    np.testing.assert_allclose(y, [[3.25], [2.0]])
    # Double: the online network chooses 1 and 0, worth 6 and 1: 1 + 0.5 * 3.5.
    double = agent_with(online, target, double=True)
    np.testing.assert_allclose(double.compute_target(observation, transition), [[2.75], [2.0]])
    # The values taken are 2 and 0, then 3 and 2.5: errors 1.25 and 3.25, then -1 and -0.5.
    agent.compile(keras.optimizers.SGD(0.0), loss="mse", jit_compile=False)
    weight = np.array([1.0, 0.5], np.float32)
    logs = agent.train_on_batch(observation, transition, weight, return_dict=True)
    squares = 1.0 * (1.25**2 + 3.25**2) + 0.5 * (1.0**2 + 0.5**2)
    np.testing.assert_allclose(logs["loss"], squares / 4)
    np.testing.assert_allclose(logs["td_error"], [2.25, -0.75])
    np.testing.assert_allclose(logs["priority"], [4.5, 1.5])
    np.testing.assert_allclose(logs["q_value"], (2.0 + 0.0 + 3.0 + 2.5) / 4)
    np.testing.assert_allclose(agent.td_errors((observation, transition, None)), [2.25, -0.75])


def one_branch(kind, branches, **rule):
    """Tables of 6 cells and 3 actions, and the same ones repeated for each branch."""
    rng = np.random.default_rng(3)
    shape = (6, 3) if kind == "plain" else (6, 3, N)
    tables = rng.normal(size=(2, *shape))
    if branches is not None:
        tables = np.repeat(np.expand_dims(tables, 2), branches, axis=2)
    return agent_with(*tables, kind=kind, **rule)


def random_batch(branches):
    rng = np.random.default_rng(5)
    action = rng.integers(3, size=32)
    if branches is not None:
        action = np.repeat(action[:, None], branches, axis=1)
    discount = rng.choice([0.0, 0.9], size=32)
    cells = rng.integers(6, size=(2, 32))
    return batch_of(action, *cells, rng.normal(size=32), discount)


@BY_KIND
@BY_RULE
@pytest.mark.parametrize("branches", [3, pytest.param(1, marks=pytest.mark.hard)])
def test_equal_branches_are_one_action_taken_several_times(kind, rule, branches):
    rules = {**RULES[rule], "conservative": 0.3}
    weight = np.random.default_rng(0).uniform(size=32).astype(np.float32)
    logs, weights = [], []
    for number in (None, branches):
        agent = one_branch(kind, number, **rules)
        agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        observation, transition = random_batch(number)
        logs.append(agent.train_on_batch(observation, transition, weight, return_dict=True))
        logs[-1]["target"] = np.asarray(agent.compute_target(observation, transition))
        weights.append(agent.network.get_weights()[0].reshape(6, number or 1, -1))
    logs[0]["priority"] = branches * logs[0]["priority"]
    assert logs[0].keys() == logs[1].keys()
    for name, value in logs[0].items():
        np.testing.assert_allclose(logs[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    if branches == 1:
        np.testing.assert_allclose(weights[1], weights[0], rtol=1e-4, atol=1e-6)


def test_an_implicit_agent_with_equal_branches():
    targets, weights = [], None
    for number in (None, 2):
        torso = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        agent = keras_dqn.ImplicitQuantileDQN(torso, DuelingHead(3, num_branches=number))
        networks = (agent.network, agent.target_network)
        if number is None:
            rng = np.random.default_rng(2)
            weights = [[rng.normal(size=w.shape) for w in n.get_weights()] for n in networks]
        for network, own in zip(networks, weights, strict=True):
            branches = number or 1
            wide = [np.tile(w, branches) if w.shape[-1] == 3 else w for w in own]
            network.set_weights(wide)
        rng = np.random.default_rng(0)
        observation, following = rng.normal(size=(2, 16, 4)).astype(np.float32)
        action = random_batch(number)[1]["action"][:16]
        zeros = np.zeros(16)
        _, transition = batch_of(action, zeros, zeros, rng.normal(size=16), zeros + 0.9)
        transition["next_observation"] = following
        agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
        targets.append(np.asarray(agent.compute_target(observation, transition)))
        assert np.isfinite(agent.train_on_batch(observation, transition)[0])
        assert agent.act(observation).shape == ((16,) if number is None else (16, 2))
    np.testing.assert_allclose(targets[1], targets[0], rtol=1e-4, atol=1e-5)


SPACE = MultiDiscrete([2, 4, 3], start=[0, 10, -1])


class Combination(gym.Env):
    """In each cell one combination is the best: a third of the reward for each right part."""

    def __init__(self, space=SPACE, cells=4, length=8):
        self.observation_space, self.action_space = Discrete(cells), space
        self.length, self.cells = length, cells
        self.best = np.random.default_rng(8).integers(space.nvec, size=(cells, len(space.nvec)))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.cell = 0, int(self.np_random.integers(self.cells))
        return self.cell, {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action)), action
        right = np.asarray(action) - self.action_space.start == self.best[self.cell]
        self.t, self.cell = self.t + 1, int(self.np_random.integers(self.cells))
        return self.cell, float(right.mean()), False, self.t == self.length, {}


def new_agent(absurd=None, **kwargs):
    """For unequal branches: the values of choices that a branch does not have are absurd."""
    keras.utils.set_random_seed(0)
    network = table(4, (3, 4))
    agent = keras_dqn.DQN(network, **kwargs)
    if absurd is not None:
        for each in (agent.network, agent.target_network):
            values = np.random.default_rng(1).normal(size=(4, 3, 4))
            values[:, 0, 2:] = values[:, 2, 3:] = absurd
            each.layers[0].embeddings.assign(values.reshape(4, -1))
    agent.compile(keras.optimizers.Adam(0.05), steps_per_execution=8, jit_compile=False)
    return agent


def trained(env, replay, agent, updates=64, batch_size=16, epsilon=0.3):
    rule = keras_dqn.EpsilonGreedy(epsilon)
    collect = keras_dqn.CollectTransitions(env, replay, exploration=rule, warmup_steps=50, seed=1)
    callbacks = [collect, keras_dqn.SoftTargetUpdate(0.05)]
    data = replay.dataset(batch_size, gamma=0.5, n_step=2)
    agent.fit(data, epochs=1, steps_per_epoch=updates, callbacks=callbacks, verbose=0)
    return agent


@pytest.mark.parametrize("absurd", [np.nan, pytest.param(1e6, marks=pytest.mark.hard)])
@pytest.mark.parametrize("rule", RULES)
def test_a_choice_that_a_branch_does_not_have_counts_nowhere(rule, absurd, tmp_path):
    env = SyncVectorEnv([Combination] * 2)
    replay = keras_dqn.ReplayBuffer.from_env(env, 1_000)
    agent = new_agent(absurd, **RULES[rule], conservative=0.2)
    before = agent.network.get_weights()[0].reshape(4, 3, 4)
    trained(env, replay, agent)  # the environment takes no other action
    after = agent.network.get_weights()[0].reshape(4, 3, 4)
    assert (agent.action_start, agent.branch_sizes) == ((0, 10, -1), (2, 4, 3))
    np.testing.assert_array_equal(after[:, 0, 2:], before[:, 0, 2:])
    assert np.isfinite(after[:, 1]).all()
    assert (after[:, 1] != before[:, 1]).any()
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert (loaded.action_start, loaded.branch_sizes) == ((0, 10, -1), (2, 4, 3))
    cells = np.arange(4)
    best = np.stack([after[:, d, :size].argmax(axis=-1) for d, size in enumerate((2, 4, 3))], 1)
    for act in (agent.act, agent.policy(), loaded.act, loaded.policy()):
        np.testing.assert_array_equal(act(cells), best + SPACE.start)
    values = agent.policy().host_policy(cells).action_values(cells)
    np.testing.assert_array_equal(values.argmax(axis=-1), best)
    agent.export_policy(tmp_path / "policy", verbose=False)
    served = tf.saved_model.load(tmp_path / "policy")
    np.testing.assert_array_equal(served.serve(tf.constant(cells, tf.int32)), best + SPACE.start)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("kind", [keras_dqn.ReplayBuffer, keras_dqn.PrioritizedReplayBuffer])
def test_what_is_collected_can_be_saved_and_drawn(kind, mode, tmp_path):
    env = SyncVectorEnv([Combination] * 3, autoreset_mode=mode)
    replay = kind.from_env(env, 300, seed=0)
    trained(env, replay, new_agent())
    observation, transition, _ = replay.sample(2_000)
    assert transition["action"].shape == (2_000, 3)
    assert transition["action"].dtype == np.int32
    assert (transition["action"].min(axis=0) == 0).all()
    np.testing.assert_array_equal(transition["action"].max(axis=0), [1, 3, 2])
    right = transition["action"] == Combination().best[observation]
    np.testing.assert_allclose(transition["reward"], right.mean(axis=1), rtol=1e-6)
    replay.save(tmp_path / "replay.h5")
    loaded = kind.load(tmp_path / "replay.h5")
    for one, other in zip(replay.sample(50)[1].items(), loaded.sample(50)[1].items(), strict=True):
        np.testing.assert_array_equal(one[1], other[1])


def test_a_single_environment_and_its_repetition():
    env = Combination()
    replay = keras_dqn.ReplayBuffer.from_env(env, 300)
    collector = keras_dqn.Collector(env, replay, exploration=keras_dqn.EpsilonGreedy(1.0), seed=0)
    collector.collect_at_random(30)
    state = collector.get_state()
    other_env = Combination()
    other = keras_dqn.Collector(other_env, replay, exploration=keras_dqn.EpsilonGreedy(1.0), seed=0)
    other.set_state(state)
    assert (other_env.t, other_env.cell) == (env.t, env.cell)
    assert env.t == 30 % 8


@pytest.mark.parametrize(
    "rule",
    [
        lambda: keras_dqn.EpsilonGreedy(0.5),
        lambda: keras_dqn.EpsilonZGreedy(0.5, mu=1.5),
        lambda: keras_dqn.Boltzmann(0.1),
    ],
)
def test_one_coin_for_all_branches(rule):
    """A greedy branch and a random one never meet, except for `Boltzmann`."""
    explore, rng = rule(), np.random.default_rng(0)
    values = np.full((4_000, 3, 200), -1.0)
    values[:, :, 7] = 1.0  # a random action is 7 once in 200 times
    greedy = (explore(values, rng) == 7).sum(axis=1)
    if isinstance(explore, keras_dqn.Boltzmann):
        assert set(greedy) == {3}
        return
    assert 0.4 < (greedy == 3).mean() < 0.6
    assert ((greedy == 1) | (greedy == 2)).mean() < 0.02


def test_dueling_by_hand():
    """V = 1; advantages 0, 2 and 4, 4: per branch their mean is subtracted."""
    head = DuelingHead(2, num_branches=2)
    head.build((None, 1))
    head.value[0].kernel.assign([[1.0]])
    head.advantage[0].kernel.assign([[0.0, 2.0, 4.0, 4.0]])
    np.testing.assert_allclose(head(np.ones((1, 1))), [[[0.0, 2.0], [1.0, 1.0]]])
    assert DuelingHead(2, 5, num_branches=3).compute_output_shape((None, 4)) == (None, 3, 2, 5)
    config = DuelingHead.from_config(DuelingHead(2, num_branches=3).get_config())
    assert config.num_branches == 3


def test_a_network_without_branches_is_refused():
    replay = keras_dqn.ReplayBuffer(10, Discrete(4), SPACE)
    agent = keras_dqn.DQN(table(4, (3, 3)))
    agent.compile()
    message = r"must give values of shape \(3, 4\), branches first, .*Received: \(3, 3\)"
    with pytest.raises(ValueError, match=message):
        agent.fit(replay.dataset(2), epochs=1, steps_per_epoch=1)
    flat = keras_dqn.DQN(table(4, (4,)))
    flat.compile(jit_compile=False)
    batch = batch_of([[0, 1]] * 2, [0, 1], [0, 1], [0, 0], [0, 0])
    with pytest.raises(
        ValueError, match=r"action values of shape \[B, D, A\], because the actions"
    ):
        flat.train_on_batch(*batch)


@pytest.mark.parametrize("start", [[1, 0, 2], (1, 0, 2), np.array([1, 0, 2])])
def test_the_start_may_be_set_by_hand(start):
    space = MultiDiscrete([2, 2, 2], start=[1, 0, 2])
    replay = keras_dqn.ReplayBuffer(10, Discrete(4), space)
    agent = keras_dqn.DQN(table(4, (3, 2)))
    agent.action_start = start
    agent.check_replay(replay)
    assert agent.get_config()["action_start"] == (1, 0, 2)
    agent.action_start = np.zeros(3)
    assert agent.action_start == 0
    agent.branch_sizes = (2, 3, 2)
    with pytest.raises(ValueError, match="`branch_sizes` must be that of the replay buffer's"):
        agent.check_replay(replay)
    agent.branch_sizes, agent.action_start = None, (3, 3, 3)
    with pytest.raises(ValueError, match="`action_start` must be that of the replay buffer's"):
        agent.check_replay(replay)


def test_actions_outside_a_branch_are_refused():
    replay = keras_dqn.ReplayBuffer(10, Box(0, 1, (1,)), SPACE)
    zero = np.zeros(1, np.float32)
    replay.add(zero, np.array([1, 13, 1]), 0.0, False, False, zero)
    for action in ([2, 13, 1], [1, 9, 1], [0, 10, -2]):
        with pytest.raises(ValueError, match=r"`action` must be in MultiDiscrete"):
            replay.add(zero, np.array(action), 0.0, False, False, zero)
    with pytest.raises(ValueError, match=r"`action` must have shape \(1, 3\)"):
        replay.add(zero, 1, 0.0, False, False, zero)
    assert len(replay) == 1


class Flat(gym.ActionWrapper):
    """All combinations as one Discrete space."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = Discrete(int(np.prod(env.action_space.nvec)))

    def action(self, action):
        return np.array(np.unravel_index(action, self.env.action_space.nvec))


def greedy_return(make, shape, seed):
    """Of an agent after 4,000 steps."""
    keras.utils.set_random_seed(seed)
    env = SyncVectorEnv([make] * 4)
    replay = keras_dqn.ReplayBuffer.from_env(env, 5_000, seed=seed)
    agent = keras_dqn.DQN(table(16, shape))
    rate = keras.optimizers.schedules.PolynomialDecay(0.05, 3_944, 0.0)
    agent.compile(keras.optimizers.Adam(rate), steps_per_execution=8, jit_compile=False)
    epsilon = keras_dqn.LinearSchedule(1.0, 0.05, 3_000)
    trained(env, replay, agent, updates=3_944, batch_size=64, epsilon=epsilon)
    return keras_dqn.EvaluatePolicy(make(), episodes=40, seed=0).evaluate(agent)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.hard) for seed in range(1, 5))]
)
def test_branching_solves_what_a_flat_agent_does_not(seed):
    """5 choices in each of 3 branches: 15 values for a cell instead of 125. The optimum is 8."""
    space = MultiDiscrete([5, 5, 5])
    branching = greedy_return(lambda: Combination(space, 16), (3, 5), seed)
    flat = greedy_return(lambda: Flat(Combination(space, 16)), (125,), seed)
    print(f"seed {seed}: branching {branching:.2f}, flat {flat:.2f}")
    assert branching == 8.0
    assert flat < 7.5
