"""Settings for each environment of the learning curves, as plain functions to copy from.

A preset takes the name of an environment, a seed and a budget in environment steps, and returns
what a run needs. The caller sets Keras' seed before:

    keras.utils.set_random_seed(0)
    run = presets.quick_start("CartPole-v1", seed=0, env_steps=50_000)
    evaluate = keras_dqn.EvaluatePolicy(run.test_env, episodes=10, seed=1_000)
    run.agent.fit(
        run.data,
        epochs=run.epochs,
        steps_per_epoch=run.epoch_updates,
        callbacks=[*run.callbacks, evaluate],
    )

`ENVIRONMENTS` names the preset and the budget of each environment.
"""

import dataclasses

import gymnasium as gym
import keras

import keras_dqn


@dataclasses.dataclass
class Run:
    """What a run needs. `test_env` and what comes after the updates are for its evaluation."""

    agent: keras_dqn.DQN
    data: keras_dqn.ReplayDataset
    callbacks: list
    test_env: gym.vector.VectorEnv
    updates: int
    epoch_updates: int
    max_episode_steps: int | None = None
    episodes: int = 10  # of an evaluation during training

    @property
    def epochs(self):
        return -(-self.updates // self.epoch_updates)


def quick_start(env_id, seed, env_steps):
    """The quick start: all settings of `examples/cartpole.py`, but for longer evaluations."""
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="sync")
    test_env = gym.make_vec(env_id, num_envs=10, vectorization_mode="sync")
    num_actions = int(env.single_action_space.n)
    network = keras_dqn.networks.mlp(env.single_observation_space, num_actions)
    updates = env_steps - 1_000
    agent = keras_dqn.DQN(network, double=True)
    agent.compile(adam(1e-3, updates), steps_per_execution=64)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=seed)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000)),
        warmup_steps=1_000,
        max_env_steps=env_steps,
        seed=seed,
    )
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.005)]
    data = replay.dataset(batch_size=64, gamma=0.99, n_step=5)
    epoch_updates = max(2_000, updates // 25)  # the example's, and longer ones in longer runs
    return Run(agent, data, callbacks, test_env, updates, epoch_updates, episodes=100)


def cart_pole(env_id, seed, env_steps):
    """The quick start with HL-Gauss (Farebrother et al., 2024), which forgets less often.

    A reward of 1 for each step: discounted returns lie between 0 and 100.
    """
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="sync")
    test_env = gym.make_vec(env_id, num_envs=10, vectorization_mode="sync")
    num_actions = int(env.single_action_space.n)
    network = keras_dqn.networks.mlp(env.single_observation_space, (num_actions, 51))
    updates = env_steps - 1_000
    agent = keras_dqn.HLGaussDQN(network, v_min=0.0, v_max=100.0, double=True)
    agent.compile(adam(1e-3, updates), steps_per_execution=64)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=seed)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000)),
        warmup_steps=1_000,
        max_env_steps=env_steps,
        seed=seed,
    )
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.005)]
    data = replay.dataset(batch_size=64, gamma=0.99, n_step=5)
    return Run(agent, data, callbacks, test_env, updates, epoch_updates=2_000, episodes=100)


def acrobot(env_id, seed, env_steps):
    """The quick start as C51, with layer normalisation (Ba et al., 2016).

    Each step costs 1, so discounted returns lie between -100 and 0.
    """
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="sync")
    test_env = gym.make_vec(env_id, num_envs=10, vectorization_mode="sync")
    num_actions = int(env.single_action_space.n)
    network = keras_dqn.networks.mlp(
        env.single_observation_space, (num_actions, 51), layer_normalization=True
    )
    updates = env_steps - 1_000
    agent = keras_dqn.CategoricalDQN(network, v_min=-100.0, v_max=0.0, double=True)
    agent.compile(adam(1e-3, updates), steps_per_execution=64)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=seed)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000)),
        warmup_steps=1_000,
        max_env_steps=env_steps,
        seed=seed,
    )
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.005)]
    data = replay.dataset(batch_size=64, gamma=0.99, n_step=5)
    return Run(agent, data, callbacks, test_env, updates, epoch_updates=5_000)


def mountain_car(env_id, seed, env_steps):
    """The quick start with inputs scaled to [-1, 1]: the velocity is at most 0.07."""
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="sync")
    test_env = gym.make_vec(env_id, num_envs=10, vectorization_mode="sync")
    space, num_actions = env.single_observation_space, int(env.single_action_space.n)
    scaled = keras_dqn.layers.box_rescaling(space)
    mlp = keras_dqn.networks.mlp(space, num_actions)
    network = keras.Sequential([keras.Input(space.shape), scaled, mlp])
    updates = env_steps - 1_000
    agent = keras_dqn.DQN(network, double=True)
    agent.compile(adam(1e-3, updates), steps_per_execution=64)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=seed)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000)),
        warmup_steps=1_000,
        max_env_steps=env_steps,
        seed=seed,
    )
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.005)]
    data = replay.dataset(batch_size=64, gamma=0.99, n_step=5)
    return Run(agent, data, callbacks, test_env, updates, epoch_updates=5_000)


def lunar_lander(env_id, seed, env_steps):
    """The quick start with HL-Gauss, layer normalisation and a buffer of 100,000.

    Targets outside of -300 to 300 are clipped.
    """
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="sync")
    test_env = gym.make_vec(env_id, num_envs=10, vectorization_mode="sync")
    num_actions = int(env.single_action_space.n)
    network = keras_dqn.networks.mlp(
        env.single_observation_space, (num_actions, 51), layer_normalization=True
    )
    updates = env_steps - 1_000
    agent = keras_dqn.HLGaussDQN(network, v_min=-300.0, v_max=300.0, double=True)
    agent.compile(adam(1e-3, updates), steps_per_execution=64)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=100_000, seed=seed)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000)),
        warmup_steps=1_000,
        max_env_steps=env_steps,
        seed=seed,
    )
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.005)]
    data = replay.dataset(batch_size=64, gamma=0.99, n_step=5)
    return Run(agent, data, callbacks, test_env, updates, epoch_updates=10_000)


def minatar(env_id, seed, env_steps, n_step=1, exploration=keras_dqn.EpsilonGreedy):
    """Double DQN with the network and warm-up of MinAtar's `examples/dqn.py`.

    Young and Tian, 2019, "MinAtar: An Atari-inspired testbed for thorough and reproducible
    reinforcement learning experiments". Theirs makes an update after each frame with RMSprop, a
    batch of 32, a hard copy of the target, a buffer of 100,000 and ε to 0.1; this one after every
    eighth, with Adam, a batch of 64, layer normalisation, a buffer of 25,000 and ε to 0.02. As in
    theirs, the optimizer's own epsilon is large. `-v0` has all six actions, and an action sticks
    with probability 0.1. Freeway reports its time limit as `terminated`, as it was published.
    `freeway` has another `n_step` and another class of exploration.
    """
    register_minatar(env_id)
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="sync")
    test_env = gym.make_vec(env_id, num_envs=10, vectorization_mode="sync")
    num_actions = int(env.single_action_space.n)
    network = keras_dqn.networks.minatar_cnn(
        env.single_observation_space, num_actions, layer_normalization=True
    )
    updates = (env_steps - 5_000) // 8
    agent = keras_dqn.DQN(network, double=True)
    agent.compile(adam(3e-4, updates, epsilon=1e-3, end=0.3), steps_per_execution=16)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=25_000, seed=seed)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=exploration(keras_dqn.LinearSchedule(1.0, 0.02, 100_000)),
        env_steps_per_update=8,
        warmup_steps=5_000,
        max_env_steps=env_steps,
        seed=seed,
    )
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.01)]
    data = replay.dataset(batch_size=64, gamma=0.99, n_step=n_step)
    # Most games have no time limit: an agent that never loses would never end an evaluation.
    return Run(
        agent, data, callbacks, test_env, updates, epoch_updates=6_250, max_episode_steps=10_000
    )


def freeway(env_id, seed, env_steps):
    """The preset `minatar` with 5-step returns and εz-greedy: a reward is many steps away.

    Single random actions hardly ever cross the road, repeated ones do (Dabney et al., 2021,
    "Temporally-extended epsilon-greedy exploration").
    """
    return minatar(env_id, seed, env_steps, n_step=5, exploration=keras_dqn.EpsilonZGreedy)


def minatar_all(env_id, seed, env_steps):
    """The preset `minatar` with quantiles and prioritized replay, the parts that pay together.

    Dabney et al., 2018, "Distributional reinforcement learning with quantile regression"; Schaul et
    al., 2016, "Prioritized experience replay". All other settings are those of `minatar`.
    """
    register_minatar(env_id)
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="sync")
    test_env = gym.make_vec(env_id, num_envs=10, vectorization_mode="sync")
    num_actions = int(env.single_action_space.n)
    network = keras_dqn.networks.minatar_cnn(
        env.single_observation_space, (num_actions, 51), layer_normalization=True
    )
    updates = (env_steps - 5_000) // 8
    agent = keras_dqn.QuantileDQN(network, double=True)
    agent.compile(adam(3e-4, updates, epsilon=1e-3, end=0.3), steps_per_execution=16)
    beta = keras_dqn.LinearSchedule(0.4, 1.0, updates)
    replay = keras_dqn.PrioritizedReplayBuffer.from_env(env, 25_000, beta=beta, seed=seed)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.02, 100_000)),
        env_steps_per_update=8,
        warmup_steps=5_000,
        max_env_steps=env_steps,
        seed=seed,
    )
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.01)]
    data = replay.dataset(batch_size=64, gamma=0.99, n_step=1)
    return Run(
        agent, data, callbacks, test_env, updates, epoch_updates=6_250, max_episode_steps=10_000
    )


def register_minatar(env_id):
    if env_id not in gym.registry:
        import minatar.gym

        minatar.gym.register_envs()


def atari(env_id, seed, env_steps):
    """Double DQN with 3-step returns and the network of the first DQN paper (Mnih et al., 2013).

    The protocol is that of Machado et al., 2018, "Revisiting the Arcade Learning Environment", and
    of Dopamine: frame skip 4, sticky actions with probability 0.25, no random start, 84x84 grey
    frames of which 4 are stacked, the minimal action set, and a lost life ends nothing. Rewards are
    clipped in training alone, and evaluation plays whole games of at most 108,000 frames. One
    environment step is four frames.
    """
    import ale_py

    gym.register_envs(ale_py)
    protocol = {"repeat_action_probability": 0.25, "noop_max": 0, "use_fire_reset": False}
    protocol |= {"frameskip": 4, "episodic_life": False, "reward_clipping": False}
    test_env = gym.make_vec(env_id, num_envs=10, num_threads=1, **protocol)
    env = gym.make_vec(env_id, num_envs=8, num_threads=1, **protocol)
    env = gym.wrappers.vector.RecordEpisodeStatistics(env)
    env = gym.wrappers.vector.ClipReward(env, -1.0, 1.0)
    num_actions = int(env.single_action_space.n)
    layers = keras.layers
    network = keras.Sequential([keras.Input(env.single_observation_space.shape)])
    network.add(layers.Permute((2, 3, 1)))
    network.add(layers.Rescaling(1 / 255))
    network.add(layers.Conv2D(16, 8, 4, activation="relu"))
    network.add(layers.Conv2D(32, 4, 2, activation="relu"))
    network.add(layers.Flatten())
    network.add(layers.Dense(256, "relu"))
    network.add(layers.Dense(num_actions))
    updates = (env_steps - 5_000) // 4
    agent = keras_dqn.DQN(network, double=True)
    agent.compile(keras.optimizers.Adam(2.5e-4, epsilon=1.5e-4), steps_per_execution=8)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=100_000, frame_stack=4, seed=seed)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.01, 50_000)),
        env_steps_per_update=4,
        warmup_steps=5_000,
        max_env_steps=env_steps,
        seed=seed,
    )
    callbacks = [collect, keras_dqn.SoftTargetUpdate(tau=0.005)]
    data = replay.dataset(batch_size=32, gamma=0.99, n_step=3)
    return Run(agent, data, callbacks, test_env, updates, epoch_updates=6_250)


def adam(learning_rate, updates, epsilon=1e-7, end=0.0):
    """Returns Adam with clipped gradients and a learning rate that decays to a part of itself."""
    decay = keras.optimizers.schedules.PolynomialDecay(learning_rate, updates, end * learning_rate)
    return keras.optimizers.Adam(decay, clipnorm=10.0, epsilon=epsilon)


FUNCTIONS = (
    quick_start,
    cart_pole,
    acrobot,
    mountain_car,
    lunar_lander,
    minatar,
    freeway,
    minatar_all,
    atari,
)
PRESETS = {function.__name__: function for function in FUNCTIONS}
ENVIRONMENTS = {
    "CartPole-v1": (cart_pole, 50_000),
    "Acrobot-v1": (acrobot, 100_000),
    "MountainCar-v0": (mountain_car, 120_000),
    "LunarLander-v3": (lunar_lander, 300_000),
    "MinAtar/Asterix-v0": (minatar, 1_000_000),
    "MinAtar/Breakout-v0": (minatar, 1_000_000),
    "MinAtar/Freeway-v0": (freeway, 1_000_000),
    "MinAtar/Seaquest-v0": (minatar, 1_000_000),
    "MinAtar/SpaceInvaders-v0": (minatar, 1_000_000),
    "ALE/Pong-v5": (atari, 500_000),
}
