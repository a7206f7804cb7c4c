"""Fitted-Q evaluation against closed forms, and what it leaves alone."""

import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn
from keras_dqn import FittedQEvaluation, HLGaussDQN
from keras_dqn.layers.noise import drawing

GAMMA = 0.5
SPACES = gym.spaces.Discrete(4), gym.spaces.Discrete(2)


def table(values):
    """A network that looks its values up, `[4, 2]`, or `[4, 2, N]`."""
    values = np.asarray(values, np.float32)
    shape = values.shape[1:]
    start = keras.initializers.Constant(values.reshape(4, -1))
    layers = [keras.layers.Embedding(4, int(np.prod(shape)), start), keras.layers.Reshape(shape)]
    return keras.Sequential([keras.Input((), dtype="int32"), *layers])


def walk_of(rng, num_episodes=200):
    """Action 1 goes right for a reward of 1, action 0 stays for 2; after state 3 it is over."""
    replay = keras_dqn.ReplayBuffer(20_000, *SPACES, seed=0)
    for _ in range(num_episodes):
        states, actions, rewards = [int(rng.integers(4))], [], []
        while len(actions) < 50 and (not actions or states[-1] != 3 or actions[-1] == 0):
            actions.append(int(rng.integers(2)))
            rewards.append(2.0 - actions[-1])
            if states[-1] == 3 and actions[-1] == 1:
                states.append(0)
                break
            states.append(states[-1] + actions[-1])
        ended = actions[-1] == 1 and states[-2] == 3
        replay.add_episode(np.array(states), np.array(actions), np.array(rewards), ended)
    return replay


def values_of(policy):
    """Returns the true values `[4, 2]` of a policy, `[4]` actions, by solving linear equations."""
    matrix, reward = np.eye(8), np.zeros(8)
    for state in range(4):
        for action in range(2):
            row = 2 * state + action
            reward[row] = 2.0 - action
            after = state + action
            if after < 4:
                matrix[row, 2 * after + policy[after]] -= GAMMA
    return np.linalg.solve(matrix, reward).reshape(4, 2)


def agent_of(policy):
    agent = keras_dqn.DQN(table(np.eye(2)[list(policy)] * 100.0))
    agent.update_target(1.0)
    agent.target_network.set_weights([-w for w in agent.network.get_weights()])
    return agent


def trained(evaluation, updates=1_200):
    evaluation.compile(keras.optimizers.SGD(0.5), steps_per_execution=100, jit_compile=False)
    evaluation.fit(
        walk_of(np.random.default_rng(0)).dataset(32, gamma=GAMMA),
        steps_per_epoch=updates,
        callbacks=[keras_dqn.SoftTargetUpdate(0.1)],
        verbose=0,
    )
    return evaluation


@pytest.mark.parametrize("policy", [(1, 1, 1, 1), (0, 0, 0, 0), (1, 0, 1, 0)])
def test_it_learns_the_values_of_the_policy_and_not_the_best(policy):
    evaluation = trained(FittedQEvaluation(table(np.zeros((4, 2))), agent=agent_of(policy)))
    learned = evaluation.network.get_weights()[0]
    np.testing.assert_allclose(learned, values_of(policy), atol=0.02)
    states = np.arange(4)
    np.testing.assert_allclose(
        evaluation.value(states), values_of(policy)[states, list(policy)], atol=0.02
    )


def test_another_representation_of_values_is_a_base_class():
    class HLGaussEvaluation(HLGaussDQN, FittedQEvaluation):
        pass

    policy = (1, 1, 1, 1)
    network = table(np.zeros((4, 2, 41)))
    evaluation = HLGaussEvaluation(
        network, agent=agent_of(policy), v_min=-1.0, v_max=5.0, num_bins=41
    )
    evaluation.compile(keras.optimizers.Adam(0.1), steps_per_execution=100, jit_compile=False)
    evaluation.fit(
        walk_of(np.random.default_rng(0)).dataset(32, gamma=GAMMA),
        steps_per_epoch=1_500,
        callbacks=[keras_dqn.SoftTargetUpdate(0.1)],
        verbose=0,
    )
    states = np.arange(4)
    np.testing.assert_allclose(evaluation.value(states), values_of(policy)[states, 1], atol=0.1)


def mlp(num_actions=2):
    return keras_dqn.networks.mlp(gym.spaces.Box(-1.0, 1.0, (3,)), num_actions, hidden_units=(8,))


def batches():
    space = gym.spaces.Box(-1.0, 1.0, (3,))
    replay = keras_dqn.ReplayBuffer(100, space, gym.spaces.Discrete(2), seed=0)
    observations = np.random.default_rng(0).uniform(-1.0, 1.0, (31, 3)).astype(np.float32)
    replay.add_episode(observations, np.arange(30) % 2, np.ones(30), True)
    return replay.dataset(16)


def train(model, updates=20):
    model.fit(
        batches(),
        steps_per_epoch=updates,
        callbacks=[keras_dqn.SoftTargetUpdate(0.1)],
        verbose=0,
    )


@pytest.mark.parametrize("trainable", [None, True])
def test_the_agent_is_not_trained(trainable):
    agent = keras_dqn.DQN(mlp(), double=True)
    agent.compile()
    train(agent)
    assert agent.trainable
    before = agent.get_state()
    evaluation = FittedQEvaluation(mlp(), agent=agent)
    if trainable is not None:
        evaluation.trainable = trainable
    evaluation.compile(keras.optimizers.AdamW(0.01))
    own = [v.numpy() for v in evaluation.network.variables]
    train(evaluation)
    after = agent.get_state()
    for name in ("variables", "optimizer_variables"):
        for a, b in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(a, b)
    assert any(
        (a != v.numpy()).any() for a, v in zip(own, evaluation.network.variables, strict=True)
    )
    assert {id(v) for v in evaluation.trainable_variables} == {
        id(v) for v in evaluation.network.trainable_variables
    }
    train(agent)  # it can still be trained


def test_it_is_saved_with_its_agent(tmp_path):
    agent = keras_dqn.DQN(mlp())
    agent.compile(keras.optimizers.Adam(0.01))
    train(agent)
    evaluation = FittedQEvaluation(mlp(), agent=agent)
    evaluation.compile(keras.optimizers.Adam(0.01))
    train(evaluation)
    evaluation.save(tmp_path / "evaluation.keras")
    loaded = keras.saving.load_model(tmp_path / "evaluation.keras")
    observation = np.random.default_rng(1).uniform(-1.0, 1.0, (50, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.agent.act(observation), agent.act(observation))
    np.testing.assert_array_equal(loaded.value(observation), evaluation.value(observation))
    for model in (evaluation, loaded):
        model.fit(
            batches(), steps_per_epoch=10, callbacks=[keras_dqn.SoftTargetUpdate(0.1)], verbose=0
        )
    np.testing.assert_array_equal(loaded.value(observation), evaluation.value(observation))


def test_an_agent_with_a_mask_takes_allowed_actions_only():
    space = gym.spaces.Dict(
        observation=gym.spaces.Box(-1.0, 1.0, (1,)), action_mask=gym.spaces.MultiBinary(2)
    )
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    agent = keras_dqn.DQN(network, action_mask="action_mask")
    network.set_weights([np.zeros((1, 2)), np.array([0.0, 9.0])])
    other = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    evaluation = FittedQEvaluation(other, agent=agent, action_mask="action_mask")
    other.set_weights([np.zeros((1, 2)), np.array([3.0, 4.0])])
    masks = np.array([[1, 1], [1, 0], [0, 1]], np.int8)
    observation = {"observation": np.zeros((3, 1), np.float32), "action_mask": masks}
    np.testing.assert_array_equal(evaluation.value(observation), [4.0, 3.0, 4.0])
    assert space.contains({"observation": np.zeros(1, np.float32), "action_mask": masks[0]})


def test_several_branches_give_the_mean_of_their_values():
    def branches():
        return keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(6), keras.layers.Reshape((2, 3))]
        )

    agent = keras_dqn.DQN(branches())
    agent.network.set_weights([np.zeros((1, 6)), np.array([0, 0, 1, 5, 0, 0])])
    evaluation = FittedQEvaluation(branches(), agent=agent)
    evaluation.network.set_weights([np.zeros((1, 6)), np.array([10, 20, 30, 4, 50, 60])])
    np.testing.assert_array_equal(evaluation.value(np.zeros((1, 1), np.float32)), [17.0])


def unbuilt():
    return keras_dqn.DQN(keras.Sequential([keras.layers.Dense(2)]))


AGENT = keras_dqn.DQN(mlp())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"agent": AGENT.network}, TypeError, "`agent` must be a DQN"),
        ({"agent": unbuilt()}, ValueError, "`agent` must be built"),
        ({"agent": AGENT, "network": AGENT.network}, ValueError, "`network` must share no weight"),
        (
            {"agent": AGENT, "network": AGENT.target_network},
            ValueError,
            "`network` must share no weight",
        ),
        ({"agent": AGENT, "double": True}, ValueError, "`double` and `munchausen` must not"),
        (
            {"agent": AGENT, "munchausen": keras_dqn.Munchausen()},
            ValueError,
            "`double` and `munchausen` must not",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        FittedQEvaluation(**{"network": mlp(), **arguments})


def test_windows_of_several_steps_are_refused():
    evaluation = FittedQEvaluation(mlp(), agent=AGENT)
    evaluation.compile()
    space = gym.spaces.Box(-1.0, 1.0, (3,))
    replay = keras_dqn.ReplayBuffer(100, space, gym.spaces.Discrete(2), seed=0)
    with pytest.raises(ValueError, match=r"`n_step` must be 1: .* Received: n_step=3"):
        evaluation.fit(replay.dataset(16, n_step=3), steps_per_epoch=1)


def random_agents():
    noisy = [
        keras.Input((3,)),
        keras.layers.Dense(8, "relu"),
        keras_dqn.layers.NoisyDense(2, sigma0=5.0),
    ]
    yield keras_dqn.DQN(keras.Sequential(noisy))
    torso = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu")])
    yield keras_dqn.ImplicitQuantileDQN(torso, keras.layers.Dense(2), risk=lambda tau: tau**4)


@pytest.mark.parametrize("agent", list(random_agents()), ids=["noisy", "implicit"])
def test_the_agent_acts_without_noise_also_where_networks_draw(agent):
    evaluation = FittedQEvaluation(mlp(), agent=agent)
    observation = np.random.default_rng(1).uniform(-1.0, 1.0, (500, 3)).astype(np.float32)
    outputs = evaluation(observation)
    state = agent.get_state()["variables"]
    with drawing():
        chosen = evaluation.choose_next_action(outputs, observation)
    np.testing.assert_array_equal(chosen, agent.act(observation))
    for a, b in zip(state, agent.get_state()["variables"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_network_with_other_actions_is_refused():
    evaluation = FittedQEvaluation(mlp(3), agent=AGENT)
    with pytest.raises(ValueError, match="`network` must have as many actions as `agent`"):
        evaluation.value(np.zeros((1, 3), np.float32))


def loop(env, agent, num_envs, max_steps):
    """Returns the first observations of an agent's episodes and their discounted returns."""
    envs = gym.vector.SyncVectorEnv([lambda: gym.make(env, max_episode_steps=max_steps)] * num_envs)
    first = observation = envs.reset(seed=7)[0]
    policy, returns, runs = agent.policy(), np.zeros(num_envs), np.ones(num_envs, bool)
    for t in range(max_steps):
        observation, reward, terminated, truncated, _ = envs.step(policy(observation))
        returns += 0.99**t * reward * runs
        runs &= ~(terminated | truncated)
    return first, returns


@pytest.mark.hard
def test_the_returns_of_three_cartpole_agents():
    """Within 5%, from episodes of all three with 2%, 20% and 50% random actions."""
    keras.utils.set_random_seed(0)
    env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    space = env.single_observation_space
    learner = keras_dqn.DQN(keras_dqn.networks.mlp(space, 2), double=True)
    learner.compile(keras.optimizers.Adam(1e-3, clipnorm=10.0), steps_per_execution=50)
    replay = keras_dqn.ReplayBuffer.from_env(env, 50_000, seed=0)
    explore = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000))
    callbacks = [
        keras_dqn.CollectTransitions(env, replay, exploration=explore, seed=0),
        keras_dqn.SoftTargetUpdate(0.005),
    ]
    agents = []
    data = keras_dqn.ReplayBuffer.from_env(env, 250_000, seed=1)
    for updates in (200, 1_800, 6_000):
        learner.fit(
            replay.dataset(64, n_step=5), steps_per_epoch=updates, callbacks=callbacks, verbose=0
        )
        agents.append(keras_dqn.DQN(keras.models.clone_model(learner.network)))
        agents[-1].network.set_weights(learner.network.get_weights())
        for epsilon in (0.02, 0.2, 0.5):
            own = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
            explore = keras_dqn.EpsilonGreedy(epsilon)
            collector = keras_dqn.Collector(own, data, exploration=explore, seed=0)
            collector.collect(agents[-1].policy(), 25_000)
    errors = []
    for agent in agents:
        scale = keras.layers.Normalization()
        scale.adapt(data.sample(20_000)[0])
        mlp = keras_dqn.networks.mlp(space, 2, hidden_units=(256, 256), layer_normalization=True)
        network = keras.Sequential([keras.Input(space.shape), scale, mlp])
        evaluation = FittedQEvaluation(network, agent=agent)
        rate = keras.optimizers.schedules.PolynomialDecay(1e-3, 30_000, 0.0)
        evaluation.compile(keras.optimizers.Adam(rate), steps_per_execution=100)
        evaluation.fit(
            data.dataset(256),
            steps_per_epoch=30_000,
            callbacks=[keras_dqn.SoftTargetUpdate(0.02)],
            verbose=0,
        )
        first, returns = loop("CartPole-v1", agent, 200, 1_000)
        estimate, true = evaluation.value(first).mean(), returns.mean()
        errors.append(estimate / true - 1.0)
        print(f"estimate {estimate:.2f}, true return {true:.2f}, error {errors[-1]:+.1%}")
    assert np.abs(errors).max() < 0.05
