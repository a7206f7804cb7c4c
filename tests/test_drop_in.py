"""Single pieces of ours in Keras code that uses nothing else of ours."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import shake
from envs import ChainEnv

import keras_dqn


class RecordWeights(keras.callbacks.Callback):
    """Keeps the trainable weights of networks after each batch."""

    def __init__(self, *networks):
        super().__init__()
        self.networks = networks
        self.after_batch = []

    def on_train_batch_end(self, batch, logs=None):
        self.after_batch.append([values_of(network) for network in self.networks])


def values_of(network):
    return [weight.numpy() for weight in network.trainable_variables]


def averaged(start, followed, tau):
    """Returns the moving average of lists of weights, in NumPy."""
    average = [weight.astype(np.float64) for weight in start]
    for weights in followed:
        average = [a + tau * (w - a) for a, w in zip(average, weights, strict=True)]
    return average


def assert_close(weights, expected, atol=1e-6):
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight, value, atol=atol)


# A mean teacher


def classifier():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(3, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, "softmax"),
        ]
    )


def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(48, 6, 6, 1)).astype(np.float32), rng.integers(3, size=48)


def fit_classifier(student, callbacks, **compile_kwargs):
    student.compile("adam", "sparse_categorical_crossentropy", **compile_kwargs)
    x, y = images()
    return student.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_a_mean_teacher_in_a_classifier(steps_per_execution):
    alone, student, teacher = classifier(), classifier(), classifier()
    shake(teacher)
    start = [weight.copy() for weight in values_of(teacher)]
    record = RecordWeights(alone)
    plain = fit_classifier(alone, [record], jit_compile=False)
    follow = keras_dqn.SoftTargetUpdate(tau=0.2, source=student, target=teacher)
    taught = fit_classifier(
        student, [follow], jit_compile=False, steps_per_execution=steps_per_execution
    )
    # The student learns what it learns without the callback...
    assert_close(student.get_weights(), alone.get_weights(), atol=1e-6)
    if steps_per_execution == 1:
        assert taught.history == plain.history
    # ... and after each of the 12 batches the teacher has moved towards it.
    assert len(record.after_batch) == 12
    expected = averaged(start, [weights for (weights,) in record.after_batch], 0.2)
    assert_close(values_of(teacher), expected, atol=1e-5)
    student_statistics = [v.numpy() for v in student.layers[1].non_trainable_variables]
    assert_close([v.numpy() for v in teacher.layers[1].non_trainable_variables], student_statistics)


# An actor-critic with two targets


class ActorCritic(keras.Model):
    """DDPG's update (Lillicrap et al., 2016, Algorithm 1), as somebody has written it."""

    def __init__(self):
        super().__init__()
        self.actor, self.target_actor = dense(3, 1), dense(3, 1)
        self.critic, self.target_critic = dense(4, 1), dense(4, 1)
        for network in (self.target_actor, self.target_critic):
            shake(network)
        self.actor_optimizer = keras.optimizers.SGD(0.05)
        self.critic_optimizer = keras.optimizers.Adam(0.01)

    def train_step(self, data):
        observation, action, reward, next_observation = data
        concat = keras.ops.concatenate
        next_action = self.target_actor(next_observation)
        next_value = self.target_critic(concat([next_observation, next_action], axis=-1))
        target = reward + 0.9 * next_value
        with tf.GradientTape() as tape:
            error = self.critic(concat([observation, action], axis=-1)) - target
            critic_loss = keras.ops.mean(error**2)
        self.apply(self.critic, self.critic_optimizer, tape, critic_loss)
        with tf.GradientTape() as tape:
            value = self.critic(concat([observation, self.actor(observation)], axis=-1))
            actor_loss = -keras.ops.mean(value)
        self.apply(self.actor, self.actor_optimizer, tape, actor_loss)
        return {"critic_loss": critic_loss, "actor_loss": actor_loss}

    def apply(self, network, optimizer, tape, loss):
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)


def dense(inputs, outputs):
    hidden = keras.layers.Dense(4, "tanh")
    return keras.Sequential([keras.Input((inputs,)), hidden, keras.layers.Dense(outputs)])


def test_two_targets_in_one_fit_of_an_actor_critic():
    model = ActorCritic()
    model.compile()
    start = [values_of(network) for network in (model.target_actor, model.target_critic)]
    record = RecordWeights(model.actor, model.critic)
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=(40, n)).astype(np.float32) for n in (3, 1, 1, 3)]
    step, function = model.train_step, model.train_function
    model.fit(
        tf.data.Dataset.from_tensor_slices(tuple(columns)).batch(8),
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras_dqn.SoftTargetUpdate(0.1, source=model.actor, target=model.target_actor),
            keras_dqn.SoftTargetUpdate(0.3, source=model.critic, target=model.target_critic),
            record,
        ],
    )
    actors, critics = zip(*record.after_batch, strict=True)
    assert len(actors) == 10
    assert_close(values_of(model.target_actor), averaged(start[0], actors, 0.1), atol=1e-5)
    assert_close(values_of(model.target_critic), averaged(start[1], critics, 0.3), atol=1e-5)
    assert (model.train_step, model.train_function) == (step, function)


# A plain model on a replay dataset


def filled(cls=keras_dqn.ReplayBuffer):
    env = ChainEnv()
    replay = cls.from_env(env, 500, seed=3)
    rng = np.random.default_rng(0)
    observation, _ = env.reset()
    for _ in range(200):
        action = int(rng.integers(2))
        next_observation, reward, terminated, truncated, _ = env.step(action)
        replay.add(observation, action, reward, terminated, truncated, next_observation)
        observation = env.reset()[0] if terminated or truncated else next_observation
    return replay


def step_model():
    """Predicts the next observation from the observation and the action."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((4,)), keras.Input((2,))
    x = keras.layers.Dense(8, "tanh")(keras.layers.Concatenate()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4)(x))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


@tf.autograph.experimental.do_not_convert  # AutoGraph warns on Python 3.13
def as_prediction(observation, transition, weight):
    # A tenth of the weight for action 1, to see that `fit` heeds it.
    weight = weight * tf.where(transition["action"] == 1, 0.1, 1.0)
    inputs = observation, tf.one_hot(transition["action"], 2)
    return inputs, transition["next_observation"], weight


def test_a_replay_dataset_feeds_a_plain_model():
    model, other = step_model(), step_model()
    model.fit(filled().dataset(16).map(as_prediction), steps_per_epoch=10, shuffle=False, verbose=0)
    replay = filled()  # draws the same
    for _ in range(10):
        observation, transition, _ = replay.sample(16)
        action = transition["action"]
        other.train_on_batch(
            (observation, np.eye(2, dtype=np.float32)[action]),
            transition["next_observation"],
            np.where(action == 1, 0.1, 1.0).astype(np.float32),
        )
    assert_close(model.get_weights(), other.get_weights(), atol=1e-6)


# A plain Q-network in somebody's own loop


def test_evaluation_of_a_plain_network_in_its_own_loop():
    env, gamma = ChainEnv(), 0.9
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    network.compile(keras.optimizers.SGD(2.0), "mse", jit_compile=False)  # halves each error
    network.set_weights([np.tile([[1.0, 0.0]], (4, 1))])  # it stays, and earns nothing
    evaluate = keras_dqn.EvaluatePolicy(env, episodes=2)
    assert evaluate.evaluate(network) == 0.0
    for _ in range(20):
        network.train_on_batch(np.eye(4, dtype=np.float32), env.q_star(gamma))
    np.testing.assert_allclose(network.get_weights()[0], env.q_star(gamma), atol=1e-3)
    assert evaluate.evaluate(network) == 1.0
    assert evaluate.episode_returns.tolist() == [1.0, 1.0]


def test_evaluation_as_a_callback_of_a_plain_fit():
    env = ChainEnv()
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    network.compile(keras.optimizers.SGD(2.0), "mse", jit_compile=False)  # halves each error
    network.set_weights([np.tile([[1.0, 0.0]], (4, 1))])
    history = network.fit(
        np.eye(4), env.q_star(0.9), batch_size=4, epochs=20, verbose=0,
        callbacks=[keras_dqn.EvaluatePolicy(env, episodes=1, validation_freq=10)],
    ).history  # fmt: skip
    assert history["val_return"][-1] == 1.0


# The tutorial's own loop


def test_the_tutorials_own_loop_is_what_fit_does(make_network):
    keras.utils.set_random_seed(0)
    networks = make_network(inputs=4), make_network(inputs=4)
    networks[1].set_weights(networks[0].get_weights())
    by_fit, by_hand = (keras_dqn.DQN(network, double=True) for network in networks)
    for agent in (by_fit, by_hand):
        agent.compile(keras.optimizers.Adam(0.01))
        shake(agent.target_network)
    replays = [filled(keras_dqn.PrioritizedReplayBuffer) for _ in range(2)]
    by_fit.fit(
        replays[0].dataset(8, gamma=0.9, n_step=2),
        steps_per_epoch=12,
        verbose=0,
        callbacks=[keras_dqn.SoftTargetUpdate(0.1)],
    )
    for _ in range(12):
        batch = replays[1].sample(8, gamma=0.9, n_step=2)
        # `fit` feeds back the errors of its own forward pass, those before the update.
        td_errors = by_hand.td_errors(batch)
        by_hand.train_on_batch(*batch)
        keras_dqn.soft_update(by_hand.network, by_hand.target_network, tau=0.1)
        replays[1].update_priorities(batch[1]["key"], td_errors)
    for name in ("network", "target_network"):
        weights, others = (getattr(a, name).get_weights() for a in (by_fit, by_hand))
        assert_close(weights, others, atol=1e-5)
    _, transition, weight = zip(*(r.sample(64) for r in replays), strict=True)
    np.testing.assert_array_equal(transition[0]["key"], transition[1]["key"])
    np.testing.assert_allclose(weight[0], weight[1], rtol=1e-4)
    assert len(set(weight[0].tolist())) > 4
    env = ChainEnv()
    values = [keras_dqn.EvaluatePolicy(env, episodes=1).evaluate(a) for a in (by_fit, by_hand)]
    assert values[0] == values[1]
