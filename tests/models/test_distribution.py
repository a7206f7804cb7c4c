"""Agents under `tf.distribute`, on two logical CPU devices that `conftest.py` makes."""

import contextlib

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import shake

import keras_dqn

BATCH_SIZE, NUM_BATCHES = 8, 6


@pytest.fixture(scope="session")
def mirrored():
    """One a process: the collective operations of a second would have the numbers of the first."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def finite_dataset(make_batches):
    batches = make_batches(NUM_BATCHES, BATCH_SIZE)
    rows = tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *batches)
    return tf.data.Dataset.from_tensor_slices(rows).batch(BATCH_SIZE)


def make_agent(strategy, layers=(), cls=keras_dqn.DQN, **compile_kwargs):
    """Makes the same agent under each strategy."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        keras.utils.set_random_seed(0)
        layers = [getattr(keras.layers, name)(**arguments) for name, arguments in layers]
        network = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(5, "tanh"), *layers, keras.layers.Dense(2)]
        )
        agent = cls(network, double=True)
        agent.compile(
            **{"optimizer": keras.optimizers.Adam(0.05), "jit_compile": False, **compile_kwargs}
        )
        shake(agent.target_network)
    return agent


def assert_equal_agents(agent, other, atol=1e-5):
    for name in ("network", "target_network"):
        weights, others = getattr(agent, name).get_weights(), getattr(other, name).get_weights()
        for weight, other_weight in zip(weights, others, strict=True):
            np.testing.assert_allclose(weight, other_weight, atol=atol, err_msg=name)
    assert agent.update_count.numpy() == other.update_count.numpy()


@pytest.mark.parametrize("update_freq", [1, 3])
@pytest.mark.parametrize(
    "layers",
    [(), (("BatchNormalization", {"synchronized": True}),)],
    ids=["dense", "synchronized BatchNormalization"],
)
def test_two_replicas_learn_what_one_device_does(make_batches, mirrored, layers, update_freq):
    runs = []
    for strategy in (None, mirrored):
        agent = make_agent(strategy, layers, metrics=[keras.metrics.MeanAbsoluteError("mae")])
        history = agent.fit(
            finite_dataset(make_batches),
            epochs=2,
            verbose=0,
            callbacks=[keras_dqn.SoftTargetUpdate(0.1, update_freq)],
        ).history
        runs.append((agent, history))
    (one, history), (two, other_history) = runs
    assert_equal_agents(one, two)
    assert two.update_count.numpy() == 2 * NUM_BATCHES
    assert history.keys() == other_history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(other_history[name], values, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_one_device_strategy(make_batches, steps_per_execution):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    agents = []
    for each in (None, strategy):
        agents.append(make_agent(each, steps_per_execution=steps_per_execution, jit_compile="auto"))
        agents[-1].fit(
            finite_dataset(make_batches), verbose=0, callbacks=[keras_dqn.SoftTargetUpdate(0.1)]
        )
    assert_equal_agents(*agents)


def test_a_network_that_is_built_late(make_batches, mirrored):
    """`fit` builds it from the first batch, as Keras does under a strategy."""
    with mirrored.scope():
        agent = keras_dqn.DQN(keras.Sequential([keras.layers.Dense(2)]))
        agent.compile("sgd")
    agent.fit(finite_dataset(make_batches), verbose=0, callbacks=[keras_dqn.SoftTargetUpdate(0.1)])
    assert agent.update_count.numpy() == NUM_BATCHES
    assert agent.act(np.zeros((4, 3), np.float32)).shape == (4,)


@pytest.mark.parametrize("strategy", ["one", "mirrored"])
def test_arrays_with_weights(make_batches, mirrored, strategy):
    strategy = mirrored if strategy == "mirrored" else tf.distribute.OneDeviceStrategy("CPU:0")
    agents = []
    rows = tf.nest.map_structure(
        lambda *leaves: np.concatenate(leaves), *make_batches(NUM_BATCHES, BATCH_SIZE)
    )
    x, y, weight = rows
    for each in (None, strategy):
        agents.append(make_agent(each))
        agents[-1].fit(
            x, y, batch_size=BATCH_SIZE, sample_weight=weight, shuffle=False, verbose=0,
            callbacks=[keras_dqn.SoftTargetUpdate(0.1)],
        )  # fmt: skip
    assert_equal_agents(*agents)


def test_a_further_loss_counts_once_on_two_replicas(make_batches, mirrored):
    class Regularized(keras_dqn.DQN):
        def extra_loss(self, outputs, action):
            return keras.ops.logsumexp(outputs, axis=-1)

    runs = []
    for strategy in (None, mirrored):
        agent = make_agent(strategy, cls=Regularized, optimizer=keras.optimizers.SGD(0.1))
        history = agent.fit(
            finite_dataset(make_batches), verbose=0, callbacks=[keras_dqn.SoftTargetUpdate(0.1)]
        ).history
        runs.append((agent, history["loss"]))
    assert_equal_agents(runs[0][0], runs[1][0])
    np.testing.assert_allclose(runs[0][1], runs[1][1], atol=1e-5)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_replay_on_one_device(steps_per_execution):
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        agent = keras_dqn.DQN(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        agent.compile("adam", steps_per_execution=steps_per_execution)
    env = gym.make("CartPole-v1")
    replay = keras_dqn.ReplayBuffer.from_env(env, 1_000, seed=0)
    collect = keras_dqn.CollectTransitions(
        env, replay, exploration=keras_dqn.EpsilonGreedy(0.5), warmup_steps=50, seed=0
    )
    collect.warm_up()
    agent.fit(
        replay.dataset(8), steps_per_epoch=8, verbose=0,
        callbacks=[collect, keras_dqn.SoftTargetUpdate(0.1)],
    )  # fmt: skip
    assert agent.update_count.numpy() == 8
    assert collect.env_steps == 58


def test_batches_drawn_in_advance_do_not_continue_exactly(tmp_path):
    agent = make_agent(tf.distribute.OneDeviceStrategy("CPU:0"), steps_per_execution=1)
    replay = keras_dqn.ReplayBuffer(20, gym.spaces.Box(-9, 9, (3,)), gym.spaces.Discrete(2))
    replay.add(np.zeros(3), 0, 1.0, False, False, np.ones(3))
    for save_freq in (8, "epoch"):
        parts = [keras_dqn.TrainingCheckpoint(tmp_path, save_freq=save_freq)]
        parts.append(keras_dqn.SoftTargetUpdate(0.1))
        options = {"steps_per_epoch": 2, "verbose": 0, "callbacks": parts}
        if save_freq == "epoch":
            with pytest.warns(UserWarning, match="without a distribution strategy"):
                agent.fit(replay.dataset(8), **options)
        else:
            with pytest.raises(ValueError, match="`save_freq` must be 'epoch' unless"):
                agent.fit(replay.dataset(8), **options)


def test_replay_evaluation_and_saving(mirrored, tmp_path):
    env = gym.make_vec("CartPole-v1", num_envs=4)
    with mirrored.scope():
        network = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
        )
        agent = keras_dqn.DQN(network)
        agent.compile("adam")
    shake(agent.target_network)
    replay = keras_dqn.ReplayBuffer.from_env(env, 1_000, seed=0)
    collect = keras_dqn.CollectTransitions(
        env, replay, exploration=keras_dqn.EpsilonGreedy(0.5), warmup_steps=100, seed=0
    )
    collect.warm_up()  # Keras draws the first batch before `on_train_begin`
    test_env = gym.make("CartPole-v1")
    history = agent.fit(
        replay.dataset(16, n_step=3),
        epochs=2,
        steps_per_epoch=20,
        verbose=0,
        callbacks=[
            collect,
            keras_dqn.SoftTargetUpdate(0.1),
            keras_dqn.EvaluatePolicy(test_env, episodes=2),
        ],
    ).history
    assert agent.update_count.numpy() == 40
    assert history["env_steps"][-1] >= 136
    assert history["val_return"][-1] > 0
    assert np.isfinite(agent.evaluate(replay.dataset(16), steps=3, verbose=0)).all()
    observation = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert_equal_agents(agent, loaded)
    np.testing.assert_array_equal(loaded.act(observation), agent.act(observation))


def test_an_empty_replay_buffer_says_so(mirrored):
    env = gym.make("CartPole-v1")
    with mirrored.scope():
        agent = keras_dqn.DQN(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        agent.compile("adam")
    replay = keras_dqn.ReplayBuffer.from_env(env, 100)
    with pytest.raises(Exception, match="The replay buffer is empty"):
        agent.fit(replay.dataset(16), steps_per_epoch=2, verbose=0)


def test_what_needs_one_replica_is_refused(make_batches, mirrored, make_network):
    env = gym.make("CartPole-v1")
    agent = make_agent(mirrored, steps_per_execution=2)
    with pytest.raises(ValueError, match="`steps_per_execution` must be 1"):
        agent.fit(finite_dataset(make_batches), verbose=0)
    with mirrored.scope():
        agent = keras_dqn.DQN(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        agent.compile("adam")
    replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, 100)
    with pytest.raises(ValueError, match="Priorities cannot be fed back"):
        agent.fit(replay.dataset(16), steps_per_epoch=2, verbose=0)


@pytest.mark.parametrize("kind", ["c51", "implicit"])
def test_the_family_trains_on_two_replicas(kind, mirrored, make_batches):
    """Layers that draw and outputs of other shapes; the replicas have noise of their own."""
    with mirrored.scope():
        torso = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, "tanh")])
        if kind == "implicit":
            head = keras_dqn.layers.DuelingHead(2, noisy=True)
            agent = keras_dqn.ImplicitQuantileDQN(torso, head, num_cosines=4, double=True)
        else:
            head = keras_dqn.layers.DuelingHead(2, 5, noisy=True)
            agent = keras_dqn.CategoricalDQN(
                keras.Sequential([torso, head]), num_atoms=5, v_min=-2.0, v_max=2.0
            )
        agent.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    before = agent.network.get_weights()
    history = agent.fit(
        finite_dataset(make_batches), verbose=0, callbacks=[keras_dqn.SoftTargetUpdate(0.1)]
    )
    assert np.isfinite(history.history["loss"]).all()
    assert agent.update_count.numpy() == NUM_BATCHES
    changed = [np.any(a != b) for a, b in zip(before, agent.network.get_weights(), strict=True)]
    assert all(changed)


def test_workers_of_ray_collect_for_two_replicas(mirrored):
    ray = pytest.importorskip("ray")
    from keras_dqn.integrations.ray import RayCollectTransitions

    def make_env():
        env = gym.make("CartPole-v1")
        first_three = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        return gym.wrappers.TransformObservation(env, lambda state: state[:3], first_three)

    agent = make_agent(mirrored)
    replay = keras_dqn.ReplayBuffer.from_env(make_env(), 1_000, num_envs=2, seed=0)
    ray.shutdown()  # of an example that ran in this process before
    ray.init("local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    try:
        collect = RayCollectTransitions(
            make_env, replay, num_workers=2, warmup_steps=40, block_size=4, seed=0
        )
        collect.warm_up()  # Keras draws the first batches before callbacks begin
        history = agent.fit(
            replay.dataset(BATCH_SIZE),
            epochs=2,
            steps_per_epoch=20,
            verbose=0,
            callbacks=[collect, keras_dqn.SoftTargetUpdate()],
        ).history
    finally:
        ray.shutdown()
    assert agent.update_count.numpy() == 40
    assert len(replay) == collect.env_steps == 80
    assert np.isfinite(history["loss"]).all()
    assert history["policy_lag"][-1] > 0
