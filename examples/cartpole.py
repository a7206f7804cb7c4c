"""Quick start: a DQN learns CartPole through `model.fit`, in about a minute on two cores."""

import argparse

import gymnasium as gym
import keras
import matplotlib.pyplot as plt

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0, help="of all that draws (default 0)")
parser.add_argument("--env-steps", type=int, default=50_000, help="to learn from (default 50000)")
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)

env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
network = keras.Sequential(
    [
        keras.Input(env.single_observation_space.shape),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(int(env.single_action_space.n)),
    ]
)
warmup_steps, epoch_steps = 1_000, 2_048
epochs = max(1, (args.env_steps - warmup_steps) // epoch_steps)
learning_rate = keras.optimizers.schedules.PolynomialDecay(1e-3, epochs * epoch_steps, 0.0)

agent = keras_dqn.DQN(network, double=True)
agent.compile(keras.optimizers.Adam(learning_rate, clipnorm=10.0), steps_per_execution=64)
replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=args.seed)
exploration = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000))
test_env = gym.make_vec("CartPole-v1", num_envs=10, vectorization_mode="sync")
history = agent.fit(
    replay.dataset(batch_size=64, gamma=0.99, n_step=5),
    epochs=epochs,
    steps_per_epoch=epoch_steps,
    callbacks=[
        keras_dqn.CollectTransitions(
            env, replay, exploration=exploration, warmup_steps=warmup_steps, seed=args.seed
        ),
        keras_dqn.SoftTargetUpdate(tau=0.005),
        keras_dqn.EvaluatePolicy(test_env, episodes=10, seed=args.seed + 1_000),
    ],
).history

for name in ("episode_return", "val_return"):
    plt.plot(history["env_steps"], history[name], label=name)
plt.gca().set(xlabel="environment steps", ylabel="return")
plt.legend()
plt.savefig("cartpole.png")

test = keras_dqn.EvaluatePolicy(test_env, episodes=20, seed=args.seed + 2_000)
print("before saving:", test.evaluate(agent))
agent.save("cartpole.keras")
print("return", test.evaluate(keras.models.load_model("cartpole.keras")))
