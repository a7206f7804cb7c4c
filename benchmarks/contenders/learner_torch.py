"""A PyTorch learner in one file, as CleanRL writes them: NumPy rows, eager. Argument: TASK."""

import sys

import numpy as np
import race
import torch
from learner_task import CONVOLUTIONS, GAMMA, LEARNING_RATE, TASKS, TAU, transitions
from torch import nn

task = TASKS[sys.argv[1]]
rng = np.random.default_rng(0)
steps = transitions(task)
steps["terminated"] = steps["terminated"].astype(np.float32)
steps["action"] = steps["action"].astype(np.int64)
if task.is_image:  # PyTorch wants the channels first.
    for name in ("observation", "next_observation"):
        steps[name] = np.ascontiguousarray(steps[name].transpose(0, 3, 1, 2))


def make_network():
    layers, inputs = [], task.observation_shape[-1]
    if task.is_image:
        for filters, size, stride in CONVOLUTIONS:
            layers += [nn.Conv2d(inputs, filters, size, stride), nn.ReLU()]
            inputs = filters
        layers.append(nn.Flatten())
        inputs = 7 * 7 * filters
    for units in task.hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, task.num_actions))


network, target_network = make_network(), make_network()
target_network.load_state_dict(network.state_dict())
optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)


def to_tensor(name, rows):
    tensor = torch.from_numpy(steps[name][rows])
    return tensor.float() / 255.0 if tensor.dtype == torch.uint8 else tensor


def update():
    rows = rng.integers(task.num_transitions, size=task.batch_size)
    batch = {name: to_tensor(name, rows) for name in steps}
    with torch.no_grad():
        chosen = network(batch["next_observation"]).argmax(dim=1, keepdim=True)
        value = target_network(batch["next_observation"]).gather(1, chosen).squeeze(1)
        y = batch["reward"] + GAMMA * (1.0 - batch["terminated"]) * value
    taken = network(batch["observation"]).gather(1, batch["action"].unsqueeze(1)).squeeze(1)
    loss = nn.functional.smooth_l1_loss(taken, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    pairs = zip(target_network.parameters(), network.parameters(), strict=True)
    with torch.no_grad():
        for target, online in pairs:
            target.lerp_(online, TAU)


def work(request):
    for _ in range(request["count"]):
        update()
    return request["count"]


work({"count": 10})
race.serve(work)
