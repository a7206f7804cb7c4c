"""Stable-Baselines3 or SBX: `train` on a filled buffer, then its blend. Arguments: TASK, LIB, K.

LIB is `sb3` or `sbx`. Both do plain Q-learning, not double: a forward pass fewer. The blend follows
each `train(gradient_steps=K)`, so that only K = 1 blends after every update.
"""

import sys

import gymnasium as gym
import numpy as np
import race
from learner_task import (
    GAMMA,
    LEARNING_RATE,
    TASKS,
    TAU,
    SpacesOnly,
    action_space,
    observation_space,
    transitions,
)
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import polyak_update

task, library, updates = TASKS[sys.argv[1]], sys.argv[2], int(sys.argv[3])
if library == "sb3":
    from stable_baselines3 import DQN
else:
    from sbx import DQN

steps, space = transitions(task), observation_space(task)
if task.is_image:  # PyTorch wants the channels first, and both libraries' buffers hold them so.
    space = gym.spaces.Box(0, 255, np.moveaxis(np.empty(space.shape), -1, 0).shape, np.uint8)
    for name in ("observation", "next_observation"):
        steps[name] = np.moveaxis(steps[name], -1, 1)

model = DQN(
    "CnnPolicy" if task.is_image else "MlpPolicy",
    SpacesOnly(space, action_space(task)),
    learning_rate=LEARNING_RATE,
    buffer_size=task.num_transitions,
    gamma=GAMMA,
    policy_kwargs=None if task.is_image else {"net_arch": list(task.hidden)},
    device="cpu",
)
model.set_logger(configure(format_strings=[]))
for i in range(task.num_transitions):
    model.replay_buffer.add(
        steps["observation"][i][None],
        steps["next_observation"][i][None],
        steps["action"][i][None],
        steps["reward"][i][None],
        steps["terminated"][i][None],
        [{}],
    )


def blend():
    if library == "sb3":
        polyak_update(model.q_net.parameters(), model.q_net_target.parameters(), TAU)
    else:
        model.policy.qf_state = DQN.soft_update(TAU, model.policy.qf_state)


def work(request):
    calls = -(-request["count"] // updates)
    for _ in range(calls):
        model.train(batch_size=task.batch_size, gradient_steps=updates)
        blend()
    if library == "sbx":
        import jax

        jax.block_until_ready(model.policy.qf_state.target_params)
    return calls * updates


work({"count": 2 * updates})
race.serve(work)
