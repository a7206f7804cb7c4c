"""Targets of each representation under each rule, against slow references in NumPy.

Networks are tables: cells to outputs. Online and target tables differ. Three cells that no row
looks at hold absurd values.
"""

import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn.layers.noise import drawing

CELLS, ACTIONS, N, V_MIN, V_MAX = 9, 3, 7, -2.0, 4.0
RULE = keras_dqn.Munchausen(alpha=0.8, temperature=0.4, clip=-0.7)
RULES = {"neither": {}, "double": {"double": True}, "munchausen": {"munchausen": RULE}}
KINDS = {
    "plain": (keras_dqn.DQN, {}),
    "c51": (keras_dqn.CategoricalDQN, {"num_atoms": N, "v_min": V_MIN, "v_max": V_MAX}),
    "hl_gauss": (keras_dqn.HLGaussDQN, {"num_bins": N, "v_min": V_MIN, "v_max": V_MAX}),
    "quantiles": (keras_dqn.QuantileDQN, {"num_quantiles": N}),
}
BY_KIND = pytest.mark.parametrize("kind", KINDS)
BY_RULE = pytest.mark.parametrize("rule", RULES)


def table(*shape):
    return keras.Sequential(
        [
            keras.Input((), dtype="int32"),
            keras.layers.Embedding(CELLS, int(np.prod(shape))),
            keras.layers.Reshape(shape),
        ]
    )


def make(kind, **rule):
    cls, sizes = KINDS[kind]
    agent = cls(table(ACTIONS) if kind == "plain" else table(ACTIONS, N), **sizes, **rule)
    rng = np.random.default_rng(4)
    for network in (agent.network, agent.target_network):
        values = rng.normal(size=(CELLS, *network.output_shape[1:])) * 1.5
        values[6:] = 1e6 * rng.normal(size=values[6:].shape)
        network.layers[0].embeddings.assign(values.reshape(CELLS, -1))
    return agent


def batch_of(size=64):
    rng = np.random.default_rng(1)
    transition = {
        "action": rng.integers(ACTIONS, size=size).astype(np.int32),
        "reward": rng.normal(size=size).astype(np.float32),
        "discount": rng.choice([0.0, 0.6, 0.9], size=size).astype(np.float32),
        "next_observation": rng.integers(3, size=size).astype(np.int32),
    }
    return rng.integers(3, 6, size=size).astype(np.int32), transition


# The slow references: one row at a time, in float64


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def support_of(kind):
    if kind == "c51":
        return np.linspace(V_MIN, V_MAX, N)
    width = (V_MAX - V_MIN) / N
    return V_MIN + width * (np.arange(N) + 0.5)


def q_of(kind, outputs):
    """Action values `[A]` of the outputs for one observation."""
    if kind == "plain":
        return outputs
    if kind == "quantiles":
        return outputs.mean(axis=-1)
    return (softmax(outputs) * support_of(kind)).sum(axis=-1)


def log_pi(q_values):
    return np.log(softmax(q_values / RULE.temperature))


def expected_target(kind, rule, row, online, target):
    """`online` and `target` map a cell to outputs `[A, ...]`."""
    observation, action, reward, discount, following = row
    after = target(following)
    num_actions = len(after)
    bonus_per_action = np.zeros(num_actions)
    if rule == "munchausen":
        log_policy = log_pi(q_of(kind, after))
        weights, bonus_per_action = np.exp(log_policy), -RULE.temperature * log_policy
        taken = RULE.temperature * log_pi(q_of(kind, target(observation)))[action]
        reward = reward + RULE.alpha * max(RULE.clip, taken)
    else:
        chooser = online(following) if rule == "double" else after
        weights = np.eye(num_actions)[q_of(kind, chooser).argmax()]
    if kind == "quantiles":
        return [reward + discount * weights @ (after[:, j] + bonus_per_action) for j in range(N)]
    if kind == "c51":
        mixture = sum(weights[a] * softmax(after)[a] for a in range(num_actions))
        entropy_bonus = (weights * bonus_per_action).sum()
        return projected(mixture, reward + discount * (support_of(kind) + entropy_bonus))
    value = (weights * (q_of(kind, after) + bonus_per_action)).sum()
    y = reward + discount * value
    return [y] if kind == "plain" else histogram(y)


def projected(probabilities, atoms):
    support = support_of("c51")
    width = support[1] - support[0]
    result = np.zeros(N)
    for probability, atom in zip(probabilities, np.clip(atoms, V_MIN, V_MAX), strict=True):
        result += probability * np.maximum(0.0, 1.0 - np.abs(atom - support) / width)
    return result


def histogram(y):
    """A Gaussian, integrated over each bin by a fine sum."""
    width = (V_MAX - V_MIN) / N
    x = V_MIN + (np.arange(N * 2_000) + 0.5) * width / 2_000
    density = np.exp(-0.5 * ((x - np.clip(y, V_MIN, V_MAX)) / (0.75 * width)) ** 2)
    mass = density.reshape(N, -1).sum(axis=1)
    return mass / mass.sum()


def rows_of(observation, transition):
    columns = ("action", "reward", "discount", "next_observation")
    return zip(observation, *(transition[name] for name in columns), strict=True)


@BY_KIND
@BY_RULE
def test_targets_against_the_slow_reference(kind, rule):
    agent = make(kind, **RULES[rule])
    observation, transition = batch_of()
    target = np.asarray(agent.compute_target(observation, transition))
    tables = [
        net.layers[0].embeddings.numpy().astype(float).reshape(CELLS, *net.output_shape[1:])
        for net in (agent.network, agent.target_network)
    ]
    expected = [
        expected_target(kind, rule, row, tables[0].__getitem__, tables[1].__getitem__)
        for row in rows_of(observation, transition)
    ]
    np.testing.assert_allclose(target, expected, rtol=2e-4, atol=2e-5)


@BY_KIND
def test_the_rules_differ(kind):
    targets = [
        np.asarray(make(kind, **rule).compute_target(*batch_of())) for rule in RULES.values()
    ]
    for i in range(3):
        assert np.abs(targets[i] - targets[i - 1]).max() > 0.05


@BY_KIND
@BY_RULE
def test_discount_zero_ignores_the_next_observation_even_nan(kind, rule):
    agent = make(kind, **RULES[rule])
    for network in (agent.network, agent.target_network):
        values = network.layers[0].embeddings.numpy()
        values[7] = np.nan
        network.layers[0].embeddings.assign(values)
    observation, transition = batch_of()
    transition["discount"] = np.zeros_like(transition["discount"])
    expected = np.asarray(agent.compute_target(observation, transition))
    assert np.isfinite(expected).all()
    transition["next_observation"] = np.full_like(transition["next_observation"], 7)
    np.testing.assert_array_equal(agent.compute_target(observation, transition), expected)


@BY_KIND
@BY_RULE
def test_a_permuted_batch_permutes_targets_errors_and_priorities(kind, rule):
    agent = make(kind, **RULES[rule])
    observation, transition = batch_of()
    order = np.random.default_rng(3).permutation(len(observation))

    def results(observation, transition):
        target = agent.compute_target(observation, transition)
        prediction = agent.predict_taken(agent(observation), transition["action"])
        error, priority = agent.td_error(target, prediction), agent.priority(target, prediction)
        return [np.asarray(x) for x in (target, error, priority)]

    there = results(observation, transition)
    permuted = {name: values[order] for name, values in transition.items()}
    for one, other in zip(there, results(observation[order], permuted), strict=True):
        np.testing.assert_allclose(other, one[order], rtol=1e-6, atol=1e-7)


@BY_KIND
def test_errors_and_priorities_against_the_slow_reference(kind):
    agent = make(kind)
    observation, transition = batch_of()
    target = np.asarray(agent.compute_target(observation, transition), float)
    prediction = agent.predict_taken(agent(observation), transition["action"])
    error = np.asarray(agent.td_error(target.astype("float32"), prediction))
    priority = np.asarray(agent.priority(target.astype("float32"), prediction))
    values = agent.network(observation).numpy().astype(float)
    taken = np.take_along_axis(
        values, transition["action"].reshape(-1, *[1] * (values.ndim - 1)), axis=1
    )[:, 0]
    if kind == "plain":
        expected = target[:, 0] - taken
    elif kind == "quantiles":
        expected = target.mean(axis=1) - taken.mean(axis=1)
    else:
        expected = (target - softmax(taken)) @ support_of(kind)
    np.testing.assert_allclose(error, expected, rtol=1e-4, atol=1e-5)
    if kind == "c51":
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(target > 0, target * np.log(target / softmax(taken)), 0.0)
        np.testing.assert_allclose(priority, terms.sum(axis=1), rtol=1e-3, atol=1e-5)
    else:
        np.testing.assert_allclose(priority, np.abs(error), rtol=1e-6)


@BY_KIND
def test_weight_zero_means_no_gradient(kind):
    """Also none of the conservative term, whose weight is the same."""
    agent = make(kind, conservative=0.7)
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    observation, transition = batch_of()
    before = agent.network.layers[0].embeddings.numpy()
    agent.train_on_batch(observation, transition, np.zeros(len(observation), np.float32))
    np.testing.assert_array_equal(agent.network.layers[0].embeddings, before)
    agent.train_on_batch(observation, transition)
    changed = np.abs(agent.network.layers[0].embeddings.numpy() - before).max(axis=1) > 0
    np.testing.assert_array_equal(changed, np.isin(np.arange(CELLS), observation))


@BY_KIND
def test_weights_multiply_the_loss_of_each_row(kind):
    """Also the conservative term. The loss of a row is that of a batch of this row alone."""
    agent = make(kind, conservative=0.7)
    agent.compile("sgd", jit_compile=False)
    observation, transition = batch_of(6)
    weight = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 0.25], np.float32)

    def loss(rows, *weights):
        part = {name: values[rows] for name, values in transition.items()}
        agent.reset_metrics()  # older releases of Keras return a mean over all calls
        return agent.test_on_batch(observation[rows], part, *weights, return_dict=True)["loss"]

    alone = [loss(slice(row, row + 1)) for row in range(6)]
    expected = np.mean(weight * np.array(alone))
    np.testing.assert_allclose(loss(slice(None), weight), expected, rtol=1e-4)


def test_c51_agrees_with_rlax():
    """The numbers are of RLax 0.1.9.

    categorical_q_learning(q_atoms, [[0.1, -0.3, 0.5, 0.2, 0], [99, 98, 97, 96, 95]], 0, 0.3, 0.8,
    q_atoms, logits_t) and categorical_double_q_learning(..., q_t_selector=[0, 1]).
    """
    taken = np.array([[0.1, -0.3, 0.5, 0.2, 0.0], [99.0, 98.0, 97.0, 96.0, 95.0]], np.float32)
    after = np.array([[0.4, 0.0, -0.6, 0.2, 0.3], [-0.2, 0.7, 0.1, 0.0, -0.5]], np.float32)
    transition = {
        "action": np.zeros(1, np.int32),
        "reward": np.full(1, 0.3, np.float32),
        "discount": np.full(1, 0.8, np.float32),
        "next_observation": np.ones(1, np.int32),
    }
    for double, loss in ((False, 1.7050414085388184), (True, 1.578663945198059)):
        network = keras.Sequential(
            [
                keras.Input((), dtype="int32"),
                keras.layers.Embedding(2, 10),
                keras.layers.Reshape((2, 5)),
            ]
        )
        agent = keras_dqn.CategoricalDQN(network, num_atoms=5, v_min=-1.0, v_max=1.0, double=double)
        # Online, the next values of action 1 are the larger ones.
        network.layers[0].embeddings.assign(np.stack([taken.ravel(), after[::-1].ravel()]))
        agent.target_network.layers[0].embeddings.assign(np.stack([taken.ravel(), after.ravel()]))
        agent.compile("sgd", jit_compile=False)
        logs = agent.test_on_batch(np.zeros(1, np.int32), transition, return_dict=True)
        np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)


# Implicit quantiles


def make_implicit(**kwargs):
    torso = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6, "tanh")])
    head = keras.Sequential([keras.Input((6,)), keras.layers.Dense(ACTIONS)])
    agent = keras_dqn.ImplicitQuantileDQN(torso, head, num_cosines=4, **kwargs)
    rng = np.random.default_rng(5)
    for weight in agent.weights:
        if "float" in weight.dtype:
            weight.assign(rng.normal(size=weight.shape))
    return agent


def slow_quantiles(network, observation, fractions):
    """`[B, A, N]` for fractions `[B, N]`."""
    torso, bias = network.torso.layers[0].get_weights()
    cosines, cosine_bias = network.embedding.get_weights()
    head, head_bias = network.head.layers[0].get_weights()
    result = np.zeros((*fractions.shape, ACTIONS))
    for b, j in np.ndindex(fractions.shape):
        features = np.tanh(observation[b] @ torso + bias)
        angles = np.pi * np.arange(1, 5) * fractions[b, j]
        embedding = np.maximum(0.0, np.cos(angles) @ cosines + cosine_bias)
        result[b, j] = (features * embedding) @ head + head_bias
    return result.transpose(0, 2, 1)


def vectors(size=5):
    rng = np.random.default_rng(2)
    observation, following = rng.normal(size=(2, size, 3)).astype(np.float32)
    _, transition = batch_of(size)
    return observation, {**transition, "next_observation": following}


MIDPOINTS = np.tile((np.arange(32) + 0.5) / 32, (5, 1))


def test_implicit_quantiles_against_the_slow_reference():
    agent = make_implicit()
    observation, _ = vectors()
    outputs = agent(observation)
    expected = slow_quantiles(agent.network, observation, MIDPOINTS)
    np.testing.assert_allclose(outputs["quantiles"][..., 0], expected, rtol=1e-4, atol=1e-5)
    fractions = np.broadcast_to(MIDPOINTS[:, None], (5, ACTIONS, 32))
    np.testing.assert_allclose(outputs["quantiles"][..., 1], fractions, rtol=1e-6)
    q_values = expected.mean(axis=-1)
    np.testing.assert_allclose(outputs["q_values"], q_values, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(agent.act(observation), q_values.argmax(axis=1))


@BY_RULE
def test_implicit_targets_against_the_slow_reference(rule):
    agent = make_implicit(num_target_quantiles=3, **RULES[rule])
    observation, transition = vectors()
    state = agent.target_network.seed_generator.state
    before = state.numpy()
    with drawing():
        target = np.asarray(agent.compute_target(observation, transition))
        state.assign(before)
        drawn = agent.outputs_of(agent.target_network, transition["next_observation"])
    fractions = np.asarray(drawn["quantiles"])[:, 0, :, 1]
    assert fractions.shape == (5, 3)
    assert len(np.unique(fractions)) == 15
    following = transition["next_observation"]
    after = slow_quantiles(agent.target_network, following, fractions)
    values = {
        name: slow_quantiles(network, x, MIDPOINTS).mean(axis=-1)
        for name, network, x in (
            ("online next", agent.network, following),
            ("target next", agent.target_network, following),
            ("target", agent.target_network, observation),
        )
    }
    for b in range(5):
        weights = np.eye(ACTIONS)[
            values["online next" if rule == "double" else "target next"][b].argmax()
        ]
        reward, bonus = transition["reward"][b], np.zeros(ACTIONS)
        if rule == "munchausen":
            log_policy = log_pi(values["target next"][b])
            weights, bonus = np.exp(log_policy), -RULE.temperature * log_policy
            taken = RULE.temperature * log_pi(values["target"][b])[transition["action"][b]]
            reward = reward + RULE.alpha * max(RULE.clip, taken)
        expected = reward + transition["discount"][b] * weights @ (after[b] + bonus[:, None])
        np.testing.assert_allclose(target[b], expected, rtol=1e-3, atol=1e-4)


@BY_RULE
def test_implicit_targets_with_discount_zero_ignore_the_next_observation_even_nan(rule):
    agent = make_implicit(num_target_quantiles=3, **RULES[rule])
    observation, transition = vectors()
    transition["discount"] = np.zeros(5, np.float32)
    transition["next_observation"] = np.full((5, 3), np.nan, np.float32)
    with drawing():
        target = np.asarray(agent.compute_target(observation, transition))
    q_values = slow_quantiles(agent.target_network, observation, MIDPOINTS).mean(axis=-1)
    expected = transition["reward"].astype(float)
    if rule == "munchausen":
        taken = RULE.temperature * log_pi(q_values)[np.arange(5), transition["action"]]
        expected = expected + RULE.alpha * np.maximum(RULE.clip, taken)
    np.testing.assert_allclose(target, np.tile(expected[:, None], 3), rtol=1e-4, atol=1e-5)


def test_implicit_predictions_draw_new_fractions_in_each_training_step():
    agent = make_implicit(num_quantiles=4)
    observation, transition = vectors()
    with drawing():
        first, second = (
            np.asarray(agent.predict_taken(agent(observation, training=True), transition["action"]))
            for _ in range(2)
        )
    assert first.shape == (5, 4, 2)
    assert (first[..., 1] != second[..., 1]).all()
    expected = slow_quantiles(agent.network, observation, first[..., 1])
    taken = expected[np.arange(5), transition["action"]]
    np.testing.assert_allclose(first[..., 0], taken, rtol=1e-4, atol=1e-5)


def test_the_online_and_the_target_network_draw_different_fractions():
    agent = make_implicit(num_quantiles=4, num_target_quantiles=4, seed=3)
    observation, _ = vectors()
    with drawing():
        online = agent(observation, training=True)["quantiles"]
        target = agent.outputs_of(agent.target_network, observation)["quantiles"]
    assert (np.asarray(online)[..., 1] != np.asarray(target)[..., 1]).all()


def test_risk_changes_how_the_agent_acts_and_not_what_it_learns():
    observation, transition = vectors()
    neutral, averse = make_implicit(), make_implicit(risk=quarter)
    outputs = averse(observation)
    expected = slow_quantiles(averse.network, observation, MIDPOINTS / 4).mean(axis=-1)
    np.testing.assert_allclose(outputs["q_values"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["quantiles"], neutral(observation)["quantiles"], rtol=1e-6)
    np.testing.assert_allclose(
        averse.policy().action_values(observation), expected, rtol=1e-4, atol=1e-5
    )
    with drawing():
        states = [agent.target_network.seed_generator.state for agent in (neutral, averse)]
        states[1].assign(states[0])
        targets = [agent.compute_target(observation, transition) for agent in (neutral, averse)]
    np.testing.assert_allclose(*targets, rtol=1e-6)


@keras.saving.register_keras_serializable("tests")
def quarter(fractions):
    return fractions / 4
