"""A loop in the style of CleanRL's JAX DQN: act, store, sample and update, each a call of its own.

Written anew: Gymnasium environments, SB3's `ReplayBuffer`, flax and optax, one jitted function to
act and one to update. Unlike CleanRL's it takes one update per environment step, blends the target
after each, learns double Q and, with E environments, makes E updates after each vector step.
"""

import argparse

import flax.linen as nn
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax
import race
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.buffers import ReplayBuffer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--envs", type=int, default=1)
args = parser.parse_args()

torch.set_num_threads(1)  # SB3's buffer hands out torch tensors
E, BATCH, GAMMA, TAU, WARMUP_STEPS = args.envs, 64, 0.99, 0.005, 1_000


class QNetwork(nn.Module):
    @nn.compact
    def __call__(self, observation):
        hidden = nn.relu(nn.Dense(64)(observation))
        return nn.Dense(2)(nn.relu(nn.Dense(64)(hidden)))


network, optimizer = QNetwork(), optax.adam(1e-3)


@jax.jit
def greedy(params, observation):
    return network.apply(params, observation).argmax(axis=-1)


@jax.jit
def update(params, target_params, optimizer_state, batch):
    observation, action, reward, next_observation, done = batch
    next_action = network.apply(params, next_observation).argmax(axis=-1)
    next_values = network.apply(target_params, next_observation)
    target = reward + GAMMA * (1 - done) * next_values[jnp.arange(BATCH), next_action]

    def loss_of(params):
        prediction = network.apply(params, observation)[jnp.arange(BATCH), action]
        return optax.huber_loss(prediction, target).mean()

    gradients = jax.grad(loss_of)(params)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state)
    params = optax.apply_updates(params, updates)
    return params, optax.incremental_update(params, target_params, TAU), optimizer_state


env = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * E, autoreset_mode=AutoresetMode.SAME_STEP)
replay = ReplayBuffer(
    100_000, env.single_observation_space, env.single_action_space, device="cpu", n_envs=E
)
rng = np.random.default_rng(0)
params = network.init(jax.random.key(0), jnp.zeros((1, 4)))
target_params, optimizer_state = params, optimizer.init(params)
observation, _ = env.reset(seed=0)
env_steps = 0


def step():
    """Steps all environments and then updates once for each of them."""
    global observation, env_steps, params, target_params, optimizer_state
    epsilon = max(0.05, 1.0 - 0.95 * env_steps / 10_000)
    if rng.random() < epsilon:
        action = rng.integers(2, size=E)
    else:
        action = np.asarray(greedy(params, observation))
    after, reward, terminated, _, info = env.step(action)
    final = after
    if "final_obs" in info:
        final = after.copy()
        for e in np.flatnonzero(info["_final_obs"]):
            final[e] = info["final_obs"][e]
    replay.add(observation, final, action, reward, terminated, [{}] * E)
    observation = after
    env_steps += E
    if env_steps <= WARMUP_STEPS:
        return
    for _ in range(E):
        data = replay.sample(BATCH)
        batch = (
            data.observations.numpy(),
            data.actions.numpy()[:, 0],
            data.rewards.numpy()[:, 0],
            data.next_observations.numpy(),
            data.dones.numpy()[:, 0],
        )
        params, target_params, optimizer_state = update(
            params, target_params, optimizer_state, batch
        )


def work(request):
    """Takes as many steps as asked for, rounded up to whole vector steps."""
    vector_steps = -(-request["count"] // E)
    for _ in range(vector_steps):
        step()
    jax.block_until_ready(params)
    return vector_steps * E


greedy(params, observation)
work({"count": WARMUP_STEPS + 10 * E})
race.serve(work)
