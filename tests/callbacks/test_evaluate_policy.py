import csv
import functools

import gymnasium as gym
import keras
import numpy as np
import pytest
from envs import ChainEnv, CountingEnv, DictCountingEnv, PayingResets, counting_fns, counting_vector
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from keras_dqn import (
    DQN,
    CollectTransitions,
    EpsilonGreedy,
    EpsilonZGreedy,
    EvaluatePolicy,
    ReplayBuffer,
    SoftTargetUpdate,
)

MODES = [mode.value for mode in AutoresetMode]


def always(action, num_actions=3):
    """A network for one-number observations that likes one action best."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(num_actions)])
    network.set_weights([np.zeros((1, num_actions)), np.eye(num_actions)[action]])
    return network


def agent_of(network, learning_rate=0.0):
    agent = DQN(network)
    agent.compile(keras.optimizers.SGD(learning_rate), jit_compile=False)
    return agent


shared_agent = functools.cache(lambda: agent_of(always(2)))


def standing_agent():
    """An agent that likes action 2 and learns nothing; tests share its compiled program."""
    agent = shared_agent()
    agent.update_count.assign(0)  # a new collector of a trained agent would warn
    return agent


def fit(agent, callbacks, epochs=3):
    env = CountingEnv()
    replay = ReplayBuffer.from_env(env, 100, seed=0)
    collect = CollectTransitions(
        env, replay, exploration=EpsilonGreedy(0.5), warmup_steps=10, seed=0
    )
    return agent.fit(
        replay.dataset(4),
        steps_per_epoch=2,
        epochs=epochs,
        callbacks=[collect, SoftTargetUpdate(), *callbacks],
        verbose=0,
    )


def evaluation(*lengths, **kwargs):
    """An evaluation of one episode, of these lengths in turn."""
    # A reset follows the end of an episode and another begins the next evaluation.
    return EvaluatePolicy(CountingEnv(np.repeat(lengths, 2)), episodes=1, **kwargs)


# The return


@pytest.mark.parametrize("wrap", [agent_of, lambda network: network], ids=["DQN", "plain Keras"])
@pytest.mark.parametrize("start", [0, 7], ids=["start 0", "start 7"])
@pytest.mark.parametrize(("action", "paid"), [(0, 1), (1, 11), (2, 21)])
def test_return_of_a_known_policy(wrap, start, action, paid):
    evaluate = EvaluatePolicy(CountingEnv((1, 3), start=start), episodes=4)
    assert evaluate.evaluate(wrap(always(action))) == 2 * paid
    np.testing.assert_array_equal(evaluate.episode_returns, [paid, 3 * paid, paid, 3 * paid])


def test_network_with_the_q_star_of_a_chain_reaches_the_goal():
    env = ChainEnv(length=4, time_limit=6)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    network.set_weights([env.q_star(0.9)])
    assert EvaluatePolicy(env, episodes=2).evaluate(network) == 1.0
    network.set_weights([env.q_star(0.9)[:, ::-1]])
    assert EvaluatePolicy(env, episodes=2).evaluate(network) == 0.0


def test_weights_are_read_anew_and_models_may_change():
    evaluate, network = EvaluatePolicy(CountingEnv((1,)), episodes=1), always(2)
    assert evaluate.evaluate(network) == 21
    network.set_weights(always(1).get_weights())
    assert evaluate.evaluate(network) == 11
    assert evaluate.evaluate(always(0)) == 1


@pytest.mark.parametrize("mode", MODES)
def test_dict_observations_of_a_vector_environment(mode):
    counter, minus = keras.Input((1,), name="counter"), keras.Input((1,), name="minus")
    # Likes action 1 while counter + minus is zero, as the environment has it.
    x = keras.layers.Dense(3, bias_initializer=keras.initializers.Constant([0.0, 1.0, 0.0]))(
        keras.layers.Add()([counter, minus])
    )
    model = keras.Model({"counter": counter, "deep": {"minus": minus}}, x)
    evaluate = EvaluatePolicy(counting_vector(mode, cls=DictCountingEnv), episodes=6)
    # Lengths: 3, 1 and 2, 2 and 5, 1.
    assert evaluate.evaluate(model) == pytest.approx(11 * 14 / 6)


# Shares of a vector environment


def pair(mode):
    """Two environments: in the time of one long episode the other plays ten short ones."""
    return SyncVectorEnv(
        [lambda: CountingEnv((1,)), lambda: CountingEnv((10,), ("truncated",))], autoreset_mode=mode
    )


@pytest.mark.parametrize(
    ("episodes", "expected"),
    # The first four to end would all be short: 21. The first environment plays the odd one.
    [(1, [21]), (2, [21, 210]), (3, [21, 21, 210]), (4, [21, 21, 210, 210])],
)
@pytest.mark.parametrize("mode", MODES)
def test_each_environment_plays_its_share(mode, episodes, expected):
    evaluate = EvaluatePolicy(pair(mode), episodes=episodes)
    for _ in range(2):
        assert evaluate.evaluate(always(2)) == pytest.approx(np.mean(expected))
        assert sorted(evaluate.episode_returns) == expected


def test_rewards_of_autoreset_rows_are_left_out():
    env = counting_vector("NextStep", vector_cls=PayingResets)
    # Lengths: 3, 1 and 2, 2 and 5, 1.
    assert EvaluatePolicy(env, episodes=6).evaluate(always(0)) == pytest.approx(14 / 6)


def test_fewer_episodes_than_environments():
    evaluate = EvaluatePolicy(counting_vector("SameStep", 5), episodes=2)
    # The first two environments begin with episodes of 3 and 2 steps.
    assert evaluate.evaluate(always(0)) == 2.5


# Seeds


@pytest.mark.parametrize("vectorized", [False, True], ids=["single", "vector"])
def test_seed_makes_evaluations_repeatable(vectorized):
    env = gym.make_vec("CartPole-v1", 3, "sync") if vectorized else gym.make("CartPole-v1")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    returns = {}
    for seed in (0, 1, None):
        evaluate = EvaluatePolicy(env, episodes=6, seed=seed)
        evaluate.evaluate(model)
        returns[seed] = evaluate.episode_returns
        evaluate.evaluate(model)
        assert np.array_equal(returns[seed], evaluate.episode_returns) == (seed is not None)
    assert not np.array_equal(returns[0], returns[1])


def test_seed_reaches_the_first_reset_alone():
    env = CountingEnv((2,))
    evaluate = EvaluatePolicy(env, episodes=2, seed=5)
    evaluate.evaluate(always(0))
    evaluate.evaluate(always(0))
    assert [seed for seed in env.seeds if seed is not None] == [5, 5]


# Under fit


def test_val_return_is_in_the_history_and_seen_by_later_callbacks_only():
    seen = {"before": [], "after": []}
    spies = {
        name: keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, name=name: seen[name].append(logs.get("val_return"))
        )
        for name in seen
    }
    callbacks = [spies["before"], evaluation(5, 4, 3), spies["after"]]
    history = fit(standing_agent(), callbacks).history
    assert history["val_return"] == seen["after"] == [105, 84, 63]
    assert seen["before"] == [None] * 3


def test_validation_freq():
    history = fit(standing_agent(), [evaluation(5, 4, 3, validation_freq=2)], epochs=5).history
    # Evaluated after epochs 1, 2 and 4; the others repeat the last value.
    assert history["val_return"] == [105, 84, 84, 63, 63]
    assert len(history["loss"]) == 5


def test_any_keras_model_under_fit():
    model = always(1)
    model.compile("sgd", "mse", jit_compile=False)
    history = model.fit(
        np.zeros((4, 1)), np.eye(3)[[1] * 4], callbacks=[evaluation(5, 4, 3)], verbose=0
    )
    assert history.history["val_return"] == [55]


def test_early_stopping():
    agent = agent_of(always(2), learning_rate=0.1)
    evaluate = evaluation(5, 4, 3)
    weights = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(agent.network.get_weights())
    )
    stop = keras.callbacks.EarlyStopping(
        "val_return", mode="max", patience=2, restore_best_weights=True
    )
    history = fit(agent, [evaluate, keep, stop], epochs=9)
    assert len(history.epoch) == 3
    for restored, best, last in zip(agent.network.get_weights(), *weights[::2], strict=True):
        np.testing.assert_array_equal(restored, best)
        assert not np.array_equal(best, last)


def test_model_checkpoint_keeps_the_best(tmp_path):
    agent, path = agent_of(always(2), learning_rate=0.1), tmp_path / "best.keras"
    evaluate = evaluation(2, 5, 1)
    weights = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(agent.network.get_weights())
    )
    save = keras.callbacks.ModelCheckpoint(
        str(path), monitor="val_return", mode="max", save_best_only=True
    )
    fit(agent, [evaluate, keep, save])
    best = keras.models.load_model(path)
    assert isinstance(best, DQN)
    for saved, second in zip(best.network.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(saved, second)
    assert EvaluatePolicy(CountingEnv((1,)), episodes=1).evaluate(best) in (1, 11, 21)


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    fit(standing_agent(), [evaluation(5, 4, 3), keras.callbacks.CSVLogger(str(path))])
    with path.open() as file:
        assert [float(row["val_return"]) for row in csv.DictReader(file)] == [105, 84, 63]


def test_learning_rate_scheduler_and_reduce_on_plateau():
    agent = agent_of(always(2), learning_rate=0.1)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 * rate)
    history = fit(agent, [evaluation(5, 4, 3), schedule]).history
    assert history["learning_rate"] == pytest.approx([0.05, 0.025, 0.0125])
    agent = agent_of(always(2), learning_rate=0.1)
    plateau = keras.callbacks.ReduceLROnPlateau("val_return", mode="max", factor=0.1, patience=1)
    assert fit(agent, [evaluation(5, 4, 3), plateau]).history["learning_rate"] == pytest.approx(
        [0.1, 0.1, 0.01]
    )


def test_terminate_on_nan():
    agent = agent_of(always(2))
    agent.network.set_weights([np.full((1, 3), np.nan), np.zeros(3)])
    history = fit(agent, [evaluation(5, 4, 3), keras.callbacks.TerminateOnNaN()])
    assert len(history.epoch) == 1
    assert np.isfinite(history.history["val_return"]).all()


def test_backup_and_restore(tmp_path):
    class Interrupt(Exception):
        pass

    def interrupt(epoch, logs):
        if epoch == 2:
            raise Interrupt

    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    agent, evaluate = agent_of(always(2), learning_rate=0.1), evaluation(5, 4, 3)
    stop = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
    with pytest.raises(Interrupt):
        fit(agent, [evaluate, backup, stop], epochs=4)
    after_two_epochs = agent.network.get_weights()
    resumed = agent_of(always(0), learning_rate=0.1)
    restored = []
    look = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: restored.extend(resumed.network.get_weights())
    )
    history = fit(resumed, [evaluate, backup, look], epochs=4)
    for a, b in zip(restored, after_two_epochs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert history.epoch == [2, 3]
    assert len(history.history["val_return"]) == 2


# What is refused


@pytest.mark.parametrize("name", ["episodes", "validation_freq"])
def test_arguments_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1. Received: {name}=0"):
        EvaluatePolicy(CountingEnv(), **{name: 0})


def test_wrong_environments_are_refused():
    with pytest.raises(TypeError, match="`env` must be a gymnasium"):
        EvaluatePolicy("CartPole-v1")
    with pytest.raises(ValueError, match="`action_space` must be"):
        EvaluatePolicy(gym.make("Pendulum-v1"))


@pytest.mark.parametrize("wrap", [agent_of, lambda network: network], ids=["DQN", "plain Keras"])
def test_network_of_another_number_of_actions_is_refused(wrap):
    evaluate = EvaluatePolicy(SyncVectorEnv(counting_fns(2)))
    with pytest.raises(ValueError, match=r"each of the 3 actions.*shape=\(2, 5\)"):
        evaluate.evaluate(wrap(always(1, num_actions=5)))


# Limits, frequencies and what is beside the mean


class Endless(gym.Env):
    """Pays 1 a step and never ends."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


@pytest.mark.parametrize("num_envs", [None, 3])
def test_an_environment_without_an_end_is_cut(num_envs):
    env = Endless()
    if num_envs:
        env = gym.vector.SyncVectorEnv([Endless] * num_envs)
    evaluation = EvaluatePolicy(env, episodes=5, max_episode_steps=7)
    assert evaluation.evaluate(always(1)) == 7.0
    assert evaluation.episode_returns.tolist() == [7.0] * 5


def test_standard_deviation_and_length_are_beside_the_mean():
    env = CountingEnv((5, 3))  # action 2 pays 21 a step
    logs = fit(standing_agent(), [EvaluatePolicy(env, episodes=2)], epochs=1).history
    assert logs["val_return"] == [21.0 * 4]
    assert logs["val_return_std"] == [21.0]
    assert logs["val_length"] == [4.0]


def test_an_exploration_rule_is_followed():
    env = CountingEnv((100,))
    greedy = EvaluatePolicy(env, episodes=1).evaluate(always(2))
    explored = EvaluatePolicy(env, episodes=1, exploration=EpsilonGreedy(0.5), seed=0)
    returns = [explored.evaluate(always(2)) for _ in range(2)]
    assert greedy == 2_100.0
    # Half of the steps are uniform over 1, 11 and 21, mean 11: 100 * (21 + 11) / 2 = 1,600.
    assert 1_400 < returns[0] < 1_800
    assert returns[0] == returns[1]  # the seed determines the draws too


def test_an_evaluation_forgets_the_random_actions_of_the_last_one():
    env = CountingEnv((50,))
    rule = EpsilonZGreedy(0.3, mu=1.1, max_duration=1_000)
    evaluation = EvaluatePolicy(env, episodes=1, exploration=rule, seed=0)
    first = evaluation.evaluate(always(2))
    assert rule.get_state()["steps_left"] > 0  # a random action would go on
    assert evaluation.evaluate(always(2)) == first


@pytest.mark.parametrize("validation_freq", [2, 3])
def test_callbacks_of_keras_find_the_value_in_every_epoch(tmp_path, validation_freq):
    evaluation = EvaluatePolicy(CountingEnv((4,)), episodes=1, validation_freq=validation_freq)
    calls = []
    evaluate, evaluation.evaluate = evaluation.evaluate, lambda m: calls.append(1) or evaluate(m)
    path = tmp_path / "log.csv"
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="val_return", mode="max", save_best_only=True
    )
    stop = keras.callbacks.EarlyStopping(monitor="val_return", mode="max", patience=9)
    history = fit(
        standing_agent(),
        [evaluation, keras.callbacks.CSVLogger(path), checkpoint, stop],
        epochs=6,
    ).history
    assert history["val_return"] == [84.0] * 6
    assert len(calls) == 1 + 6 // validation_freq
    rows = path.read_text().splitlines()
    assert "val_return" in rows[0]
    assert all("84.0" in row for row in rows[1:])
    assert (tmp_path / "best.keras").exists()
    assert np.isfinite(stop.best)


def test_another_evaluation_goes_on_from_the_state():
    def evaluate(exploration):
        env = CountingEnv((8, 100, 3))
        return EvaluatePolicy(env, episodes=2, exploration=exploration, seed=0)

    one, other = (evaluate(EpsilonZGreedy(0.2, max_duration=1_000)) for _ in range(2))
    one.evaluate(always(1))
    state = one.get_state()
    other.set_state(state)
    np.testing.assert_equal(other.get_state(), state)
    assert state["exploration"]["steps_left"].shape == (1,)
    assert set(evaluate(None).get_state()) == {"episode_returns", "last"}
