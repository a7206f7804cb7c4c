"""Forbidden actions count nowhere, whatever their values: the slow reference has none."""

import keras
import numpy as np
import pytest
from test_targets import (
    ACTIONS,
    BY_KIND,
    BY_RULE,
    CELLS,
    KINDS,
    RULES,
    batch_of,
    expected_target,
    rows_of,
    table,
)

import keras_dqn
from keras_dqn.layers import DuelingHead

ALLOWED = np.array(
    [[1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0]] + [[1] * 3] * 3
)
NOTHING = 8  # a cell with a mask of zeros
ALLOWED[NOTHING] = 0
ABSURD = pytest.mark.parametrize("absurd", [1e6, np.nan])


def make(kind, absurd, **rule):
    """Tables whose forbidden actions hold an absurd value; they differ."""
    cls, sizes = KINDS[kind]
    shape = (ACTIONS,) if kind == "plain" else (ACTIONS, *sizes_of(kind))
    agent = cls(table(*shape), **sizes, **rule, action_mask="mask")
    rng = np.random.default_rng(4)
    for network in (agent.network, agent.target_network):
        values = rng.normal(size=(CELLS, *shape)) * 1.5
        values[ALLOWED == 0] = absurd
        network.layers[0].embeddings.assign(values.reshape(CELLS, -1))
    return agent


def sizes_of(kind):
    return [size for name, size in KINDS[kind][1].items() if name.startswith("num_")]


def with_mask(cell):
    return {"mask": ALLOWED[cell].astype(np.int8), "observation": cell}


def masked_batch(size=64):
    observation, transition = batch_of(size)
    rng = np.random.default_rng(7)
    allowed = [rng.choice(np.flatnonzero(ALLOWED[cell])) for cell in observation]
    transition["action"] = np.array(allowed, np.int32)
    return observation, transition


def masked(observation, transition):
    following = with_mask(transition["next_observation"])
    return with_mask(observation), {**transition, "next_observation": following}


@BY_KIND
@BY_RULE
@ABSURD
def test_targets_against_a_reference_that_has_no_forbidden_actions(kind, rule, absurd):
    agent = make(kind, absurd, **RULES[rule])
    observation, transition = masked_batch()
    target = np.asarray(agent.compute_target(*masked(observation, transition)))
    tables = [
        net.layers[0].embeddings.numpy().astype(float).reshape(CELLS, *net.output_shape[1:])
        for net in (agent.network, agent.target_network)
    ]
    expected = []
    for cell, action, *rest in rows_of(observation, transition):
        place = int(ALLOWED[cell, :action].sum())  # of the action among the allowed ones
        online, following = (lambda c, t=t: t[c][ALLOWED[c] == 1] for t in tables)
        expected.append(expected_target(kind, rule, (cell, place, *rest), online, following))
    np.testing.assert_allclose(target, expected, rtol=2e-4, atol=2e-5)


@BY_KIND
@BY_RULE
@pytest.mark.parametrize("absurd", [np.nan, pytest.param(1e6, marks=pytest.mark.hard)])
def test_an_update_is_finite_and_learns_nothing_of_forbidden_actions(kind, rule, absurd):
    rules = {**RULES[rule], "conservative": 0.5}
    agent = make(kind, absurd, **rules)
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    before = agent.network.get_weights()[0].reshape(CELLS, ACTIONS, -1)
    observation, transition = masked_batch()
    logs = agent.train_on_batch(*masked(observation, transition), return_dict=True)
    assert np.isfinite(logs["loss"])
    after = agent.network.get_weights()[0].reshape(CELLS, ACTIONS, -1)
    np.testing.assert_array_equal(after[ALLOWED == 0], before[ALLOWED == 0])
    assert np.abs(after - before)[ALLOWED == 1].max() > 0


def test_conservative_learning_by_hand():
    """log(exp(1) + exp(3)) - 1 for the allowed values 1 and 3 of [1, 1e6, 3]."""
    penalty = keras_dqn.ops.conservative_penalty(
        np.array([[1.0, 1e6, 3.0]], np.float32), np.array([0]), np.array([[1, 0, 1]], np.int8)
    )
    np.testing.assert_allclose(penalty, [np.log(np.exp(1.0) + np.exp(3.0)) - 1.0], rtol=1e-6)


@BY_KIND
@BY_RULE
def test_behind_discount_zero_a_mask_may_allow_nothing(kind, rule):
    agent = make(kind, np.nan, **RULES[rule])
    observation, transition = masked_batch()
    transition["discount"] = np.zeros_like(transition["discount"])
    expected = np.asarray(agent.compute_target(*masked(observation, transition)))
    assert np.isfinite(expected).all()
    transition["next_observation"] = np.full_like(transition["next_observation"], NOTHING)
    masks = masked(observation, transition)
    assert not masks[1]["next_observation"]["mask"].any()
    np.testing.assert_array_equal(agent.compute_target(*masks), expected)


@BY_KIND
@BY_RULE
def test_behind_a_mask_of_zeros_nothing_is_expected(kind, rule):
    """As behind discount 0, also if the episode was truncated there."""
    agent = make(kind, np.nan, **RULES[rule])
    observation, transition = masked_batch()
    transition["next_observation"] = np.full_like(transition["next_observation"], NOTHING)
    target = np.asarray(agent.compute_target(*masked(observation, transition)))
    transition["discount"] = np.zeros_like(transition["discount"])
    np.testing.assert_array_equal(agent.compute_target(*masked(observation, transition)), target)
    assert np.isfinite(target).all()


@pytest.mark.parametrize("with_keywords", [False, True])
def test_overrides_of_one_method(with_keywords):
    """`outputs_of` never gets the mask, and an `extra_loss` may take two arguments."""

    class Own(keras_dqn.DQN):
        def outputs_of(self, network, observation, training=False):
            assert not isinstance(observation, dict)
            return network(observation, training=training)

        def extra_loss(self, outputs, action):
            return keras.ops.ones(keras.ops.shape(action), "float32")

    class Keywords(Own):
        def extra_loss(self, outputs, action, **kwargs):
            return super().extra_loss(outputs, action)

    agent = (Keywords if with_keywords else Own)(table(ACTIONS), action_mask="mask", double=True)
    agent.compile(keras.optimizers.SGD(0.0), loss="mse", jit_compile=False)
    batch = masked(*masked_batch())
    logs = agent.train_on_batch(*batch, return_dict=True)
    np.testing.assert_allclose(logs["loss"], np.mean(logs["td_error"] ** 2) + 1.0, rtol=1e-5)
    agent.act(batch[0])
    agent.policy()(batch[0])


@BY_RULE
@ABSURD
def test_an_implicit_agent_with_a_mask_equals_one_with_fewer_actions(rule, absurd):
    """Action 1 of 3 is always forbidden; the other agent has only the other two."""

    def agent_of(num_actions, key):
        keras.utils.set_random_seed(2)
        torso = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        head = keras.layers.Dense(num_actions)
        return keras_dqn.ImplicitQuantileDQN(torso, head, seed=5, action_mask=key, **RULES[rule])

    agents = agent_of(3, "mask"), agent_of(2, None)
    rng = np.random.default_rng(0)
    for one, other in zip(*([a.network, a.target_network] for a in agents), strict=True):
        weights = [rng.normal(size=w.shape).astype(w.dtype) for w in other.get_weights()]
        other.set_weights(weights)
        wide = [
            w if w.shape == own.shape else np.insert(w, 1, absurd, axis=-1)
            for w, own in zip(weights, one.get_weights(), strict=True)
        ]
        one.set_weights(wide)
    observation, after = rng.normal(size=(2, 16, 4)).astype(np.float32)
    transition = {
        "action": rng.integers(2, size=16).astype(np.int32),
        "reward": rng.normal(size=16).astype(np.float32),
        "discount": np.full(16, 0.9, np.float32),
        "next_observation": after,
    }
    mask = np.tile(np.array([1, 0, 1], np.int8), (16, 1))
    wide_transition = {
        **transition,
        "action": 2 * transition["action"],
        "next_observation": {"observation": after, "mask": mask},
    }
    wide = agents[0].compute_target({"observation": observation, "mask": mask}, wide_transition)
    np.testing.assert_allclose(wide, agents[1].compute_target(observation, transition), rtol=1e-4)


def test_a_mask_of_another_shape_is_refused():
    agent = make("plain", 1.0)
    observation, transition = masked(*masked_batch())
    transition["next_observation"]["mask"] = np.ones((64, 4), np.int8)
    with pytest.raises(ValueError, match="mask must have the shape of the action values"):
        agent.compute_target(observation, transition)
    with pytest.raises(ValueError, match="must be a dict with the action mask 'mask'"):
        agent.compute_target(observation["observation"], masked_batch()[1])


@pytest.mark.parametrize("rest", ["alone", "two"])
def test_the_network_gets_the_rest(rest):
    """The entry `observation` itself if it is alone, else the dict without the mask."""
    if rest == "alone":
        network = keras.Sequential([keras.Input((3,)), DuelingHead(2)])
        observation = {"observation": np.ones((5, 3), np.float32)}
    else:
        inputs = {name: keras.Input((3,), name=name) for name in ("camera", "observation")}
        outputs = keras.layers.Dense(2)(keras.layers.Concatenate()(list(inputs.values())))
        network = keras.Model(inputs, outputs)
        observation = {name: np.ones((5, 3), np.float32) for name in inputs}
    agent = keras_dqn.DQN(network, action_mask="a_mask")
    full = {**observation, "a_mask": np.ones((5, 2), np.int8)}
    given = observation["observation"] if rest == "alone" else observation
    np.testing.assert_array_equal(agent(full), network(given))
    assert agent.act(full).shape == (5,)
    assert agent.act({name: array[0] for name, array in full.items()}).shape == ()
