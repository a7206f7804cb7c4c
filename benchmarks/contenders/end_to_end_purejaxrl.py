"""A loop of the purejaxrl kind: environment, ring buffer and learner in one compiled `lax.scan`.

CartPole's dynamics are written in `jax.numpy`, so nothing returns to Python between environment
steps. It bounds what any loop can reach whose environment is an ordinary Gymnasium one.
"""

import argparse
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import race

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--envs", type=int, default=1)
args = parser.parse_args()

E, BATCH, GAMMA, TAU, WARMUP_STEPS = args.envs, 64, 0.99, 0.005, 1_000
CAPACITY = 100_000 // E  # rows of E transitions
VECTOR_STEPS = max(1, 1_024 // E)  # in one call of the program


class QNetwork(nn.Module):
    @nn.compact
    def __call__(self, observation):
        hidden = nn.relu(nn.Dense(64)(observation))
        return nn.Dense(2)(nn.relu(nn.Dense(64)(hidden)))


class Carry(NamedTuple):
    key: Any
    env_state: Any  # [E, 4], which is the observation too
    age: Any  # [E], steps into the episode
    rows: Any  # int, vector steps so far
    observation: Any  # the ring: [R, E, 4], [R, E] ...
    next_observation: Any
    action: Any
    discount: Any
    params: Any
    target_params: Any
    optimizer_state: Any


network, optimizer = QNetwork(), optax.adam(1e-3)


def reset(key):
    return jax.random.uniform(key, (E, 4), minval=-0.05, maxval=0.05)


def cartpole(state, action):
    """One Euler step of 0.02 s; Barto, Sutton & Anderson, 1983, with Gymnasium's constants."""
    _, velocity, angle, spin = state.T
    gravity, cart, pole, half_length, seconds = 9.8, 1.0, 0.1, 0.5, 0.02
    force = jnp.where(action == 1, 10.0, -10.0)
    push = (force + pole * half_length * spin**2 * jnp.sin(angle)) / (cart + pole)
    inertia = half_length * (4 / 3 - pole * jnp.cos(angle) ** 2 / (cart + pole))
    turn = (gravity * jnp.sin(angle) - jnp.cos(angle) * push) / inertia
    acceleration = push - pole * half_length * turn * jnp.cos(angle) / (cart + pole)
    change = jnp.stack([velocity, acceleration, spin, turn], axis=-1)
    after = state + seconds * change
    fallen = (jnp.abs(after[:, 0]) > 2.4) | (jnp.abs(after[:, 2]) > 12 * jnp.pi / 180)
    return after, fallen


def update(carry, key):
    filled = jnp.minimum(carry.rows, CAPACITY)
    key_row, key_env = jax.random.split(key)
    row = jax.random.randint(key_row, (BATCH,), 0, filled)
    e = jax.random.randint(key_env, (BATCH,), 0, E)
    next_observation = carry.next_observation[row, e]
    next_action = network.apply(carry.params, next_observation).argmax(axis=-1)
    next_values = network.apply(carry.target_params, next_observation)
    target = 1.0 + carry.discount[row, e] * next_values[jnp.arange(BATCH), next_action]

    def loss_of(params):
        values = network.apply(params, carry.observation[row, e])
        return optax.huber_loss(values[jnp.arange(BATCH), carry.action[row, e]], target).mean()

    gradients = jax.grad(loss_of)(carry.params)
    updates, optimizer_state = optimizer.update(gradients, carry.optimizer_state)
    params = optax.apply_updates(carry.params, updates)
    return carry._replace(
        params=params,
        target_params=optax.incremental_update(params, carry.target_params, TAU),
        optimizer_state=optimizer_state,
    ), None


def step(carry, _):
    """Steps all environments, stores the row and updates once for each environment."""
    keys = jax.random.split(carry.key, 5 + E)
    epsilon = jnp.maximum(0.05, 1.0 - 0.95 * carry.rows * E / 10_000)
    greedy = network.apply(carry.params, carry.env_state).argmax(axis=-1)
    random = jax.random.randint(keys[1], (E,), 0, 2)
    action = jnp.where(jax.random.uniform(keys[2], (E,)) < epsilon, random, greedy)
    after, terminated = cartpole(carry.env_state, action)
    ended = terminated | (carry.age + 1 >= 500)
    slot = carry.rows % CAPACITY
    carry = carry._replace(
        key=keys[0],
        env_state=jnp.where(ended[:, None], reset(keys[3]), after),
        age=jnp.where(ended, 0, carry.age + 1),
        rows=carry.rows + 1,
        observation=carry.observation.at[slot].set(carry.env_state),
        next_observation=carry.next_observation.at[slot].set(after),
        action=carry.action.at[slot].set(action),
        discount=carry.discount.at[slot].set(GAMMA * (1.0 - terminated)),
    )
    return jax.lax.cond(
        carry.rows * E > WARMUP_STEPS,
        lambda c: jax.lax.scan(update, c, keys[5:])[0],
        lambda c: c,
        carry,
    ), None


def run(carry):
    return jax.lax.scan(step, carry, None, VECTOR_STEPS)[0]


run = jax.jit(run, donate_argnums=0)
params = network.init(jax.random.key(0), jnp.zeros((1, 4)))
carry = Carry(
    key=jax.random.key(1),
    env_state=reset(jax.random.key(2)),
    age=jnp.zeros(E, jnp.int32),
    rows=jnp.zeros((), jnp.int32),
    observation=jnp.zeros((CAPACITY, E, 4)),
    next_observation=jnp.zeros((CAPACITY, E, 4)),
    action=jnp.zeros((CAPACITY, E), jnp.int32),
    discount=jnp.zeros((CAPACITY, E)),
    params=params,
    target_params=jax.tree.map(jnp.copy, params),
    optimizer_state=optimizer.init(params),
)


def work(request):
    """Runs the program until as many steps are taken as asked for, a multiple of 1,024."""
    global carry
    calls = -(-request["count"] // (VECTOR_STEPS * E))
    for _ in range(calls):
        carry = run(carry)
    jax.block_until_ready(carry.params)
    return calls * VECTOR_STEPS * E


work({"count": 2 * WARMUP_STEPS})
race.serve(work)
