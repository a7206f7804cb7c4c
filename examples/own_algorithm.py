"""
Title: An algorithm of your own in one method
Author: The keras_dqn authors
Date created: 2026/11/24
Last modified: 2026/11/24
Description: Advantage learning widens the gap between the values of actions, by one method.
Accelerator: None
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import gymnasium as gym
import keras
import numpy as np

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
parser.add_argument("--env-steps", type=int, default=30_000, help="budget of each (default 30000)")
parser.add_argument("--distribution", choices=["none", "quantiles"], default="none")
args = parser.parse_args()


class AdvantageLearning:
    """Adds `alpha * (Q(s, a) - max_b Q(s, b))` of the target network to the target of `a`.

    With exact values and 1 step, `max_b Q(s, b)` stays what it was, and the distance of each other
    action from it is divided by `1 - alpha` (Bellemare et al., 2016, "Increasing the action gap").
    """

    alpha = 0.9

    def reward_bonus(self, observation, transition, next_outputs):
        q_values = self.q_values(self.outputs_of(self.target_network, observation))  # [B, A]
        taken = keras_dqn.ops.take_action(q_values, transition["action"])
        return self.alpha * (taken - keras.ops.max(q_values, axis=1))


@keras.saving.register_keras_serializable("examples")
class AdvantageDQN(AdvantageLearning, keras_dqn.DQN):
    pass


@keras.saving.register_keras_serializable("examples")
class AdvantageQuantileDQN(AdvantageLearning, keras_dqn.QuantileDQN):
    """The same method, with a distribution of returns."""


def train(agent_class, num_outputs):
    """Returns an agent, its greedy return and its replay buffer."""
    keras.utils.set_random_seed(args.seed)
    env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    agent = agent_class(keras_dqn.networks.mlp(env.single_observation_space, num_outputs))
    updates = args.env_steps - 1_000
    learning_rate = keras.optimizers.schedules.PolynomialDecay(1e-3, updates, 0.0)
    agent.compile(keras.optimizers.Adam(learning_rate, clipnorm=10.0), steps_per_execution=64)
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=50_000, seed=args.seed)
    explore = keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.05, 10_000))
    collect = keras_dqn.CollectTransitions(
        env, replay, exploration=explore, max_env_steps=args.env_steps, seed=args.seed
    )
    follow = keras_dqn.SoftTargetUpdate(tau=0.005)
    agent.fit(replay.dataset(64, n_step=3), steps_per_epoch=updates, callbacks=[collect, follow])
    tests = gym.make_vec("CartPole-v1", num_envs=20, vectorization_mode="sync")
    test = keras_dqn.EvaluatePolicy(tests, episodes=20, seed=args.seed + 2_000)
    return agent, test.evaluate(agent), replay


quantiles = args.distribution == "quantiles"
outputs = (2, 51) if quantiles else 2
plain, plain_return, replay = train(keras_dqn.QuantileDQN if quantiles else keras_dqn.DQN, outputs)
own, own_return, _ = train(AdvantageQuantileDQN if quantiles else AdvantageDQN, outputs)
observations, _, _ = replay.sample(1_000)
for name, model, mean_return in (("plain", plain, plain_return), ("own", own, own_return)):
    low, high = np.sort(model.policy().action_values(observations), axis=1).mean(axis=0)
    print(f"{name}: return {mean_return}, largest value {high:.1f}, action gap {high - low:.2f}")
