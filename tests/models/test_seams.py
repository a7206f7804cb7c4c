"""The extension points carry another representation of values and another rule.

`Quantiles` is QR-DQN (Dabney et al., 2018) with 5 quantiles, `ExpectedSarsa` the rule of van Seijen
et al. (2009); each overrides decisions only, and both together make a third algorithm.
"""

import gymnasium as gym
import keras
import numpy as np
import pytest
from conftest import shake
from keras import ops

import keras_dqn

NUM_QUANTILES, GAMMA, CELLS = 5, 0.9, 4


@keras.saving.register_keras_serializable("tests")
class QuantileHuber(keras.losses.Loss):
    def call(self, y_true, y_pred):
        fractions = (ops.arange(NUM_QUANTILES, dtype="float32") + 0.5) / NUM_QUANTILES
        error = ops.expand_dims(y_true, 1) - ops.expand_dims(y_pred, 2)  # [B, prediction, target]
        clipped = ops.clip(error, -1.0, 1.0)
        below = ops.cast(error < 0, "float32")
        weight = ops.abs(ops.reshape(fractions, (1, -1, 1)) - below)
        return ops.sum(ops.mean(weight * clipped * (error - clipped / 2), axis=2), axis=1)


@keras.saving.register_keras_serializable("tests")
class Quantiles(keras_dqn.DQN):
    def q_values(self, outputs):
        return ops.mean(self.next_values(outputs), axis=-1)

    def next_values(self, outputs):
        return ops.cast(outputs, "float32")  # [B, A, N]

    def default_loss(self):
        return QuantileHuber()


class UniformSarsa:
    """The values of the policy that draws its actions uniformly."""

    def choose_next_action(self, next_outputs, next_observation):
        return ops.full_like(self.q_values(next_outputs), 0.5)


@keras.saving.register_keras_serializable("tests")
class ExpectedSarsa(UniformSarsa, keras_dqn.DQN):
    pass


@keras.saving.register_keras_serializable("tests")
class QuantileSarsa(UniformSarsa, Quantiles):
    pass


def table(shape):
    return keras.Sequential(
        [
            keras.Input((), dtype="int32"),
            keras.layers.Embedding(CELLS, int(np.prod(shape))),
            keras.layers.Reshape(shape),
        ]
    )


def make(cls, **kwargs):
    quantiles = issubclass(cls, Quantiles)
    return cls(table((2, NUM_QUANTILES) if quantiles else (2,)), **kwargs)


class Corridor(gym.Env):
    """Cells 0..3; action 1 goes right, action 0 stays and pays 0.1; leaving the last cell pays 1.

    Episodes start in any cell, and a time limit of 12 steps must not change the values.
    """

    observation_space = gym.spaces.Discrete(CELLS)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell, self.steps = int(self.np_random.integers(CELLS)), 0
        return self.cell, {}

    def step(self, action):
        self.steps += 1
        terminated = bool(action == 1 and self.cell == CELLS - 1)
        reward = 0.1 if action == 0 else 1.0 * terminated
        self.cell = min(self.cell + int(action), CELLS - 1)
        return self.cell, reward, terminated, not terminated and self.steps == 12, {}


def fixed_point(mix, n_step=1):
    """Iterates the Bellman equation of a rule; `mix` gives V `[CELLS]` of Q `[CELLS, 2]`.

    With n steps, those after the first follow the uniform policy that collects.
    """
    uniform = np.zeros((CELLS, 2))
    q_values = np.zeros((CELLS, 2))
    for _ in range(500):
        value = mix(q_values)
        for _ in range(n_step - 1):
            value = backup(value).mean(axis=1)
        q_values, uniform = backup(value), q_values
    np.testing.assert_allclose(q_values, uniform, atol=1e-9)
    return q_values


def backup(value):
    right = np.append(GAMMA * value[1:], 1.0)
    return np.stack([0.1 + GAMMA * value, right], axis=1)


def greedy(q_values):
    return q_values.max(axis=1)


def uniform(q_values):
    return q_values.mean(axis=1)


RULES = {"Quantiles": greedy, "ExpectedSarsa": uniform, "QuantileSarsa": uniform}


@pytest.mark.parametrize("cls", [Quantiles, ExpectedSarsa, QuantileSarsa])
@pytest.mark.parametrize("n_step", [1, 3])
def test_it_learns_its_own_fixed_point_from_priorities_and_goes_on_after_saving(
    cls, n_step, tmp_path
):
    env = Corridor()
    agent = make(cls, double=True)
    schedule = keras.optimizers.schedules.PolynomialDecay(0.05, 3_200, 0.0005)
    loss = "auto" if issubclass(cls, Quantiles) else "mse"
    jit_compile = "auto" if n_step == 1 else False
    agent.compile(
        keras.optimizers.Adam(schedule),
        loss=loss,
        steps_per_execution=32,
        jit_compile=jit_compile,
    )
    replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, 20_000, beta=1.0, seed=0)
    collect = keras_dqn.CollectTransitions(
        env, replay, exploration=keras_dqn.EpsilonGreedy(1.0), warmup_steps=4_000, seed=0
    )
    agent.fit(
        replay.dataset(128, gamma=GAMMA, n_step=n_step),
        steps_per_epoch=3_200,
        verbose=0,
        callbacks=[collect, keras_dqn.SoftTargetUpdate(0.05)],
    )
    assert replay.updates == 3_200
    cells = np.arange(CELLS)
    # The time limit cuts some windows of 3 steps, whose rest is then worth another policy's value.
    tolerance = 0.05 if n_step == 1 else 0.1
    expected = fixed_point(RULES[cls.__name__], n_step)
    values = agent.policy().action_values(cells)
    np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(agent.act(cells), values.argmax(axis=1))

    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert type(loaded) is cls
    batch = replay.sample(16, gamma=GAMMA)
    for one in (agent, loaded):
        one.train_on_batch(*batch)
    for a, b in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_two_rules_have_different_fixed_points():
    assert np.abs(fixed_point(greedy) - fixed_point(uniform)).max() > 0.1


def batch_of(rng, size=6):
    transition = {
        "action": rng.integers(2, size=size).astype(np.int32),
        "reward": rng.normal(size=size).astype(np.float32),
        "discount": rng.choice([0.0, 0.9], size=size).astype(np.float32),
        "next_observation": rng.integers(CELLS, size=size).astype(np.int32),
    }
    return rng.integers(CELLS, size=size).astype(np.int32), transition


@pytest.mark.parametrize("double", [False, True], ids=["dqn", "double"])
def test_quantile_targets_against_a_slow_reference(double):
    agent = make(Quantiles, double=double)
    shake(agent.network, seed=2)
    shake(agent.target_network)
    observation, transition = batch_of(np.random.default_rng(0))
    target = np.asarray(agent.compute_target(observation, transition))
    prediction = agent.predict_taken(agent(observation), transition["action"])
    online = agent.network(transition["next_observation"]).numpy()
    following = agent.target_network(transition["next_observation"]).numpy()
    choices = set()
    for row in range(len(observation)):
        chooser = (online if double else following)[row]
        best = max(range(2), key=lambda a, chooser=chooser: chooser[a].mean())
        choices.add((best, following[row].mean(axis=-1).argmax()))
        expected = transition["reward"][row] + transition["discount"][row] * following[row, best]
        np.testing.assert_allclose(target[row], expected, rtol=1e-5)
    assert (len({a == b for a, b in choices}) == 2) is double  # both kinds of rows with double
    error = target.mean(axis=1) - np.asarray(prediction).mean(axis=1)
    np.testing.assert_allclose(agent.td_error(target, prediction), error, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        agent.priority(target, prediction), np.abs(error), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("cls", [keras_dqn.DQN, Quantiles, ExpectedSarsa])
def test_discount_zero_ignores_the_next_observation_even_nan(cls):
    agent = make(cls, double=cls is not ExpectedSarsa)
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    agent.network.layers[0].embeddings.assign(
        np.where(np.arange(CELLS)[:, None] == 3, np.nan, agent.network.layers[0].embeddings)
    )
    agent.update_target()
    observation, transition = batch_of(np.random.default_rng(0))
    observation = np.zeros_like(observation)
    transition |= {"discount": np.zeros(6, np.float32), "next_observation": np.full(6, 3, np.int32)}
    target = np.asarray(agent.compute_target(observation, transition))
    np.testing.assert_array_equal(target, np.tile(transition["reward"][:, None], target.shape[1]))
    agent.train_on_batch(observation, transition)
    assert np.isfinite(agent.network.get_weights()[0][:3]).all()


def test_a_bonus_is_added_to_the_rewards():
    class Bonus(keras_dqn.DQN):
        def reward_bonus(self, observation, transition, next_outputs):
            return 10.0 * ops.cast(observation, "float32")

    plain, with_bonus = make(keras_dqn.DQN), make(Bonus)
    with_bonus.set_weights(plain.get_weights())
    observation, transition = batch_of(np.random.default_rng(0))
    difference = np.asarray(with_bonus.compute_target(observation, transition)) - np.asarray(
        plain.compute_target(observation, transition)
    )
    np.testing.assert_allclose(difference[:, 0], 10.0 * observation, rtol=1e-5)


def test_a_subclass_overrides_outputs_of_for_all_that_computes(tmp_path, make_network):
    """Model, targets, `act`, policy and exported program see observations the same way."""

    class Doubled(keras_dqn.DQN):
        def outputs_of(self, network, observation, training=False):
            return super().outputs_of(network, 2.0 * observation, training)

    agent = Doubled(make_network())
    shake(agent.target_network)
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    values = agent.network(2 * x).numpy()
    np.testing.assert_allclose(agent(x), values, rtol=1e-6)
    np.testing.assert_allclose(agent.policy().action_values(x), values, atol=1e-5)
    np.testing.assert_array_equal(agent.act(x), values.argmax(axis=1))
    ones = np.ones(9, np.float32)
    transition = {"action": ones.astype(np.int32), "reward": ones, "discount": ones}
    target = agent.compute_target(x, {**transition, "next_observation": x})
    after = agent.target_network(2 * x).numpy().max(axis=1)
    np.testing.assert_allclose(target[:, 0], 1.0 + after, rtol=1e-5)
    import tensorflow as tf

    agent.export_policy(tmp_path / "policy", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "policy"))
    np.testing.assert_array_equal(exported.serve(x), values.argmax(axis=1))


def test_a_subclass_that_overrides_call_is_refused(make_network):
    class Own(keras_dqn.DQN):
        def call(self, inputs, training=None):
            return 2.0 * self.network(inputs)

    with pytest.raises(TypeError, match=r"Override `outputs_of\(network, observation, training\)`"):
        Own(make_network())


def test_each_keras_method_is_overridden_once_in_the_chain():
    own = [cls for cls in keras_dqn.DQN.__mro__ if cls.__module__.startswith("keras_dqn.")]
    assert [cls.__name__ for cls in own] == [
        "DQN",
        "ActingModel",
        "TargetNetworkModel",
        "ReplayTrainer",
    ]
    chained = {"__init__", "build", "get_config", "from_config"}
    names = [name for name in dir(keras.Model) if not name.endswith("__")]
    for name in {*names, "__call__", "__setattr__"} - chained:
        owners = [cls.__name__ for cls in own if name in vars(cls)]
        assert len(owners) <= 1, f"{name}: {owners}"
