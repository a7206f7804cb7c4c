"""Each pair of parts of the family learns together: representation, rule, penalty, head, replay, K.

The chain is deterministic, so a rule's action values do not depend on the representation: they are
the fixed point of the rule's own equation, which a slow NumPy loop iterates.
"""

import itertools
import json
import math

import gymnasium as gym
import keras
import numpy as np
import pytest
from conftest import shake

import keras_dqn
from keras_dqn.layers import DuelingHead, NoisyDense

CELLS, ACTIONS, GAMMA = 3, 2, 0.8
MUNCHAUSEN = {"alpha": 0.8, "temperature": 0.15, "clip": -0.3}
CONSERVATIVE = 0.5
UPDATES, UPDATES_OF_GAP = 1_200, 480
UNSEEN = (1, 0)  # cell and action that the data for the conservative penalty lack

# What an agent of each representation has besides its network; all values lie in [0, 1].
RANGE = {"v_min": -0.5, "v_max": 1.5}
REPRESENTATIONS = {
    "plain": (keras_dqn.DQN, {}),
    "c51": (keras_dqn.CategoricalDQN, {"num_atoms": 21, **RANGE}),
    "hl_gauss": (keras_dqn.HLGaussDQN, {"num_bins": 20, **RANGE}),
    "qr": (keras_dqn.QuantileDQN, {"num_quantiles": 7}),
    "iqn": (keras_dqn.ImplicitQuantileDQN, {"num_cosines": 8, "num_quantiles": 4, "seed": 0}),
}
FACTORS = {
    "representation": tuple(REPRESENTATIONS),
    "rule": ("neither", "double", "munchausen"),
    "conservative": (False, True),
    "head": ("dense", "dueling", "noisy"),
    "replay": ("uniform", "prioritized"),
    "updates_per_execution": (1, 16),
}


# Which combinations are trained


def pairs_of(combination):
    return set(itertools.combinations(zip(FACTORS, combination, strict=True), 2))


def covering_set():
    """Returns combinations in which all pairs of values of two factors occur.

    Each next one has the most pairs that did not occur yet; of equal ones it is the first.
    """
    product = list(itertools.product(*FACTORS.values()))
    missing = set().union(*map(pairs_of, product))
    chosen = []
    while missing:
        best = max(product, key=lambda combination: len(pairs_of(combination) & missing))
        chosen.append(best)
        missing -= pairs_of(best)
    return chosen


COVERING_SET = covering_set()
# Five combinations that have each value at least once, for each run of the tests.
SAMPLE = [
    ("plain", "munchausen", False, "dueling", "prioritized", 16),
    ("c51", "double", False, "noisy", "uniform", 16),
    ("hl_gauss", "neither", True, "dueling", "uniform", 16),
    ("qr", "munchausen", False, "dense", "prioritized", 1),
    ("iqn", "neither", False, "noisy", "prioritized", 16),
]


def name_of(combination):
    return "-".join(map(str, combination)).replace("True", "cql").replace("False", "no_cql")


def test_the_covering_set_has_each_pair_of_values():
    seen = set().union(*map(pairs_of, COVERING_SET))
    for (first, values), (second, others) in itertools.combinations(FACTORS.items(), 2):
        for value, other in itertools.product(values, others):
            assert ((first, value), (second, other)) in seen
    assert len(set(COVERING_SET)) == len(COVERING_SET)
    assert 15 <= len(COVERING_SET) <= 20  # 5 representations x 3 rules need 15


def test_the_sample_has_each_value():
    for values, used in zip(FACTORS.values(), zip(*SAMPLE, strict=True), strict=True):
        assert set(used) == set(values)


# The chain and the fixed points of the rules


def step(cell, action):
    """Returns reward, next cell and whether the episode ends.

    Action 1 goes right; action 0 stays and pays 0.1. Going right from the last cell ends the
    episode and pays 1.
    """
    if action == 0:
        return 0.1, cell, False
    last = cell == CELLS - 1
    return float(last), min(cell + 1, CELLS - 1), last


def fixed_point(alpha=0.0, temperature=None, clip=-1.0, entropy=1.0):
    """Iterates Q(s, a) = r + bonus + gamma * V(s') one pair at a time until nothing changes.

    Without a temperature V is the maximum, and the result is Q*. With one, V is the sum of
    pi * (Q - entropy * temperature * log pi), and the bonus that of Munchausen Q-learning.
    """
    q_values = np.zeros((CELLS, ACTIONS))
    for _ in range(1_000):
        old = q_values.copy()
        for cell, action in itertools.product(range(CELLS), range(ACTIONS)):
            reward, following, ended = step(cell, action)
            value = max(old[following])
            if temperature is not None:
                reward += alpha * max(clip, scaled_logs(old[cell], temperature)[action])
                logs = scaled_logs(old[following], temperature)
                value = sum(
                    math.exp(log / temperature) * (q - entropy * log)
                    for q, log in zip(old[following], logs, strict=True)
                )
            q_values[cell, action] = reward + (0.0 if ended else GAMMA * value)
    np.testing.assert_allclose(q_values, old, rtol=0, atol=1e-12)
    return q_values


def scaled_logs(q_values, temperature):
    """Returns temperature * log pi(a) of each action, pi = softmax(Q / temperature)."""
    total = sum(math.exp(q / temperature) for q in q_values)
    return [q - temperature * math.log(total) for q in q_values]


def fixed_point_of(rule):
    return fixed_point(**MUNCHAUSEN) if rule == "munchausen" else fixed_point()


def test_q_star_of_the_chain_by_hand():
    # Right: 0.8 * 0.8 * 1, 0.8 * 1, 1. Stay: 0.1 + 0.8 * the larger value of the same cell.
    expected = [[0.1 + 0.8 * 0.64, 0.64], [0.1 + 0.8 * 0.8, 0.8], [0.1 + 0.8 * 1.0, 1.0]]
    np.testing.assert_allclose(fixed_point(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "change",
    [{"temperature": None}, {"alpha": 0.0}, {"clip": -100.0}, {"entropy": 0.0}],
    ids=["q_star", "no bonus", "no clip", "no entropy"],
)
def test_each_part_of_munchausen_moves_its_fixed_point_by_more_than_the_tolerance(change):
    expected, other = fixed_point(**MUNCHAUSEN), fixed_point(**{**MUNCHAUSEN, **change})
    assert np.abs(expected - other).max() > 0.1


def test_the_clip_of_munchausen_is_active_in_some_cells_only():
    logs = np.array(
        [scaled_logs(row, MUNCHAUSEN["temperature"]) for row in fixed_point_of("munchausen")]
    )
    clipped = logs[:, 0] < MUNCHAUSEN["clip"]  # of the action that is not greedy
    assert clipped.any()
    assert not clipped.all()


# Agents and data


def rule_arguments(rule, conservative):
    munchausen = keras_dqn.Munchausen(**MUNCHAUSEN) if rule == "munchausen" else None
    return {
        "double": rule == "double",
        "munchausen": munchausen,
        "conservative": CONSERVATIVE * conservative,
    }


def make_agent(representation, head, **kwargs):
    cls, sizes = REPRESENTATIONS[representation]
    outputs = next((size for name, size in sizes.items() if name.startswith("num_")), 1)
    torso = keras_dqn.networks.mlp(
        gym.spaces.Discrete(CELLS), None, hidden_units=(32,), activation="tanh"
    )
    if cls is keras_dqn.ImplicitQuantileDQN:
        return cls(torso, keras.Sequential(head_layers(head, 1)), **sizes, **kwargs)
    return cls(keras.Sequential([torso, *head_layers(head, outputs)]), **sizes, **kwargs)


def head_layers(head, outputs):
    if head == "dueling":
        return [DuelingHead(ACTIONS, outputs)]
    units = ACTIONS * outputs
    # Little noise, because the time to average it out grows with its square.
    last = NoisyDense(units, sigma0=0.1, seed=0) if head == "noisy" else keras.layers.Dense(units)
    return [last] if outputs == 1 else [last, keras.layers.Reshape((ACTIONS, outputs))]


def make_replay(kind, without=None):
    """Returns a buffer with each pair of cell and action 20 times, except one pair."""
    spaces = gym.spaces.Discrete(CELLS), gym.spaces.Discrete(ACTIONS)
    if kind == "uniform":
        replay = keras_dqn.ReplayBuffer(500, *spaces, seed=0)
    else:
        replay = keras_dqn.PrioritizedReplayBuffer(500, *spaces, beta=1.0, seed=0)
    pairs = [pair for pair in itertools.product(range(CELLS), range(ACTIONS)) if pair != without]
    for cell, action in pairs * 20:
        reward, following, ended = step(cell, action)
        replay.add(cell, action, reward, ended, not ended, following)
    return replay


def train(agent, replay, updates_per_execution, updates, jit_compile):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.02, updates, 0.0002)
    agent.compile(
        keras.optimizers.Adam(schedule),
        steps_per_execution=updates_per_execution,
        jit_compile=jit_compile,
    )
    agent.fit(
        replay.dataset(32, gamma=GAMMA),
        steps_per_epoch=updates,
        verbose=0,
        callbacks=[keras_dqn.SoftTargetUpdate(0.05)],
    )


def gap(agent):
    """Returns how far the value of the unseen action lies below that of the other action."""
    cell, action = UNSEEN
    values = agent.policy().action_values(np.arange(CELLS))[cell]
    return values[1 - action] - values[action]


# Training


def check_learning(combination, tmp_path, jit_compile):
    representation, rule, conservative, head, kind, updates_per_execution = combination
    agent = make_agent(representation, head, **rule_arguments(rule, conservative))
    replay = make_replay(kind, without=UNSEEN if conservative else None)
    updates = UPDATES_OF_GAP if conservative else UPDATES
    train(agent, replay, updates_per_execution, updates, jit_compile)
    if kind == "prioritized":
        assert replay.updates == updates
    cells = np.arange(CELLS)
    values = agent.policy().action_values(cells)
    if conservative:
        keras.utils.set_random_seed(0)
        without = make_agent(representation, head, **rule_arguments(rule, False))
        train(without, make_replay(kind, UNSEEN), updates_per_execution, updates, jit_compile)
        assert gap(agent) > gap(without) + 0.1
    else:
        np.testing.assert_allclose(values, fixed_point_of(rule), rtol=0, atol=0.05)
    check_acting(agent, values)
    check_that_it_goes_on(agent, replay, tmp_path)


def check_acting(agent, values):
    cells = np.arange(CELLS)
    np.testing.assert_allclose(agent.q_values(agent(cells)), values, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(agent.act(cells), values.argmax(axis=1))
    np.testing.assert_array_equal(agent.policy()(cells), values.argmax(axis=1))


def check_that_it_goes_on(agent, replay, tmp_path):
    """A loaded agent and the saved one act and learn alike, with the same fractions and noise."""
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert type(loaded) is type(agent)
    for _ in range(3):
        batch = replay.sample(16, gamma=GAMMA)
        for one in (agent, loaded):
            one.train_on_batch(*batch)
    state, other = agent.get_state(), loaded.get_state()
    for name in ("variables", "optimizer_variables"):
        for a, b in zip(state[name], other[name], strict=True):
            np.testing.assert_array_equal(a, b)
    cells = np.arange(CELLS)
    np.testing.assert_array_equal(agent.act(cells), loaded.act(cells))


@pytest.mark.parametrize("combination", SAMPLE, ids=name_of)
def test_a_sample_learns_its_own_fixed_point_and_goes_on_after_saving(combination, tmp_path):
    check_learning(combination, tmp_path, jit_compile=False)


@pytest.mark.hard
@pytest.mark.parametrize("combination", COVERING_SET, ids=name_of)
def test_each_pair_learns_its_own_fixed_point_and_goes_on_after_saving(combination, tmp_path):
    check_learning(combination, tmp_path, jit_compile="auto")


# The rest of the product


def batch_of(size=12):
    rng = np.random.default_rng(0)
    return (
        np.arange(size) % CELLS,
        {
            "action": rng.integers(ACTIONS, size=size).astype(np.int32),
            "reward": rng.uniform(size=size).astype(np.float32),
            "discount": rng.choice([0.0, GAMMA], size=size).astype(np.float32),
            "next_observation": rng.integers(CELLS, size=size),
        },
        rng.uniform(0.5, 1.5, size=size).astype(np.float32),
    )


@pytest.mark.parametrize("head", FACTORS["head"])
@pytest.mark.parametrize("rule", FACTORS["rule"])
@pytest.mark.parametrize("representation", FACTORS["representation"])
def test_all_combinations_have_the_shapes_of_their_representation(representation, rule, head):
    observation, transition, _ = batch_of()
    size = {"plain": 1, "c51": 21, "hl_gauss": 20, "qr": 7, "iqn": 32}[representation]
    for conservative in FACTORS["conservative"]:
        agent = make_agent(representation, head, **rule_arguments(rule, conservative))
        outputs = agent(observation)
        extra = np.asarray(agent.extra_loss(outputs, transition["action"]))
        assert extra.shape == (12,)
        assert (extra > 0).all() if conservative else (extra == 0).all()
    assert agent.q_values(outputs).shape == (12, ACTIONS)
    target = agent.compute_target(observation, transition)
    assert target.shape == (12, size)
    prediction = agent.predict_taken(outputs, transition["action"])
    assert prediction.shape == ((12, size, 2) if representation == "iqn" else (12, size))
    assert agent.td_error(target, prediction).shape == (12,)
    assert agent.priority(target, prediction).shape == (12,)


@pytest.mark.parametrize("rule", FACTORS["rule"])
@pytest.mark.parametrize("representation", FACTORS["representation"])
def test_config_and_one_update_of_each_rule_and_representation(representation, rule):
    """The update lowers the loss and leaves the target network; the heads take turns."""
    batch = batch_of()
    turn = FACTORS["rule"].index(rule) + FACTORS["representation"].index(representation)
    head = FACTORS["head"][turn % 3]
    agent = make_agent(representation, head, **rule_arguments(rule, conservative=True))
    config = json.dumps(agent.get_config())
    again = type(agent).from_config(json.loads(config))
    assert json.dumps(again.get_config()) == config
    agent.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    shake(agent.target_network)  # the next values do not follow the online network
    before, target = agent.network.get_weights(), agent.target_network.get_weights()
    loss = agent.test_on_batch(*batch)[0]
    logs = agent.train_on_batch(*batch, return_dict=True)
    assert agent.test_on_batch(*batch)[0] < loss
    assert logs["td_error"].shape == logs["priority"].shape == (12,)
    assert any(np.any(a != b) for a, b in zip(before, agent.network.get_weights(), strict=True))
    for a, b in zip(target, agent.target_network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rule", FACTORS["rule"])
@pytest.mark.parametrize("representation", FACTORS["representation"])
def test_only_double_looks_at_the_online_network_for_a_target(representation, rule):
    agent = make_agent(representation, "dueling", **rule_arguments(rule, conservative=True))
    observation, transition, _ = batch_of()
    shake(agent.target_network)
    targets = []
    for seed in range(4):
        shake(agent.network, seed)
        targets.append(np.asarray(agent.compute_target(observation, transition)))
    same = [np.array_equal(target, targets[0]) for target in targets]
    assert all(same) is (rule != "double")
    shake(agent.target_network, seed=9)
    assert not np.array_equal(agent.compute_target(observation, transition), targets[-1])


@pytest.mark.parametrize("rule", FACTORS["rule"])
@pytest.mark.parametrize("representation", FACTORS["representation"])
def test_the_expected_target_is_that_of_the_rule_on_expected_values(representation, rule):
    agent = make_agent(representation, "dueling", **rule_arguments(rule, conservative=False))
    shake(agent.network, seed=2)
    shake(agent.target_network)
    observation, transition, _ = batch_of()
    # Small enough to clip no atom: rewards in [0, 0.3], discounts 0 or 0.4, a bonus of -0.24.
    transition["reward"] *= 0.3
    transition["discount"] *= 0.5
    cells = np.arange(CELLS)
    online = np.asarray(agent.q_values(agent(cells)), np.float64)
    target = np.asarray(agent.q_values(agent.outputs_of(agent.target_network, cells)), np.float64)
    temperature = MUNCHAUSEN["temperature"]
    expected = []
    for row, cell in enumerate(observation):
        action, reward, discount, following = (transition[name][row] for name in transition)
        value = target[following][(online if rule == "double" else target)[following].argmax()]
        if rule == "munchausen":
            bonus = max(MUNCHAUSEN["clip"], scaled_logs(target[cell], temperature)[action])
            reward += MUNCHAUSEN["alpha"] * bonus
            logs = np.array(scaled_logs(target[following], temperature))
            value = np.exp(logs / temperature) @ (target[following] - logs)
        expected.append(reward + discount * value)
    prediction = agent.predict_taken(agent(observation), transition["action"])
    td_error = agent.td_error(agent.compute_target(observation, transition), prediction)
    expected_error = expected - online[observation, transition["action"]]
    np.testing.assert_allclose(td_error, expected_error, rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", FACTORS["head"])
@pytest.mark.parametrize("representation", FACTORS["representation"])
def test_double_with_munchausen_is_refused_with_the_reason(representation, head):
    with pytest.raises(ValueError, match="`double` must be False with `munchausen`: its next"):
        make_agent(representation, head, double=True, munchausen=keras_dqn.Munchausen())
