"""A JAX learner. Arguments: TASK, and `cleanrl`, `host` or `device K`.

`cleanrl` is what CleanRL's one file does: Stable-Baselines3's buffer, one jitted call an update,
and then the target blend, a call that is not jitted. `host` is kinder: rows gathered by NumPy, the
blend inside the jitted call. `device` keeps the transitions on the device and scans over K updates,
drawing included, in one program: the fastest way known to us.
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import race
from learner_task import (
    CONVOLUTIONS,
    GAMMA,
    LEARNING_RATE,
    TASKS,
    TAU,
    action_space,
    observation_space,
    transitions,
)

task, place = TASKS[sys.argv[1]], sys.argv[2]
updates = int(sys.argv[3]) if place == "device" else 1
steps = transitions(task)
steps["discount"] = GAMMA * (1.0 - steps.pop("terminated").astype(np.float32))
optimizer = optax.adam(LEARNING_RATE)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        if task.is_image:
            x = x.astype(jnp.float32) / 255.0
            for filters, size, stride in CONVOLUTIONS:
                x = nn.relu(nn.Conv(filters, (size, size), stride, padding="VALID")(x))
            x = x.reshape(x.shape[0], -1)
        for units in task.hidden:
            x = nn.relu(nn.Dense(units)(x))
        return nn.Dense(task.num_actions)(x)


network = Network()


def pick(values, action):
    return jnp.take_along_axis(values, action[:, None], axis=1)[:, 0]


def update(state, batch):
    params, target_params, optimizer_state = state
    chosen = network.apply(params, batch["next_observation"]).argmax(axis=1)
    value = pick(network.apply(target_params, batch["next_observation"]), chosen)
    y = batch["reward"] + batch["discount"] * value

    def loss(params):
        taken = pick(network.apply(params, batch["observation"]), batch["action"])
        return optax.huber_loss(taken, y).mean()

    changes, optimizer_state = optimizer.update(jax.grad(loss)(params), optimizer_state)
    params = optax.apply_updates(params, changes)
    if place != "cleanrl":
        target_params = optax.incremental_update(params, target_params, TAU)
    return params, target_params, optimizer_state


@jax.jit
def scan_updates(state, stored, key):
    def one(state, key):
        rows = jax.random.randint(key, (task.batch_size,), 0, task.num_transitions)
        return update(state, jax.tree.map(lambda column: column[rows], stored)), None

    return jax.lax.scan(one, state, jax.random.split(key, updates))[0]


def filled_buffer():
    import torch
    from stable_baselines3.common.buffers import ReplayBuffer

    torch.set_num_threads(1)  # its buffer hands out torch tensors
    replay = ReplayBuffer(task.num_transitions, observation_space(task), action_space(task), "cpu")
    for i in range(task.num_transitions):
        replay.add(
            steps["observation"][i][None],
            steps["next_observation"][i][None],
            steps["action"][i][None],
            steps["reward"][i][None],
            (steps["discount"][i] == 0.0)[None],
            [{}],
        )
    return replay


update_once = jax.jit(update)
params = network.init(jax.random.key(0), steps["observation"][:1])
state = (params, params, optimizer.init(params))
rng, key = np.random.default_rng(0), jax.random.key(1)
if place == "device":
    steps = jax.tree.map(jnp.asarray, steps)
if place == "cleanrl":
    replay = filled_buffer()


def draw():
    if place == "cleanrl":
        data = replay.sample(task.batch_size)
        return {
            "observation": data.observations.numpy(),
            "action": data.actions.numpy()[:, 0],
            "reward": data.rewards.numpy()[:, 0],
            "discount": GAMMA * (1.0 - data.dones.numpy()[:, 0]),
            "next_observation": data.next_observations.numpy(),
        }
    rows = rng.integers(task.num_transitions, size=task.batch_size)
    return {name: column[rows] for name, column in steps.items()}


def work(request):
    global state, key
    calls = -(-request["count"] // updates)
    for _ in range(calls):
        if place == "device":
            key, now = jax.random.split(key)
            state = scan_updates(state, steps, now)
        else:
            state = update_once(state, draw())
            if place == "cleanrl":
                params, target_params, optimizer_state = state
                target_params = optax.incremental_update(params, target_params, TAU)
                state = params, target_params, optimizer_state
    jax.block_until_ready(state)
    return calls * updates


work({"count": updates})
race.serve(work)
