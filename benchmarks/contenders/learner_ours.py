"""keras_dqn as a user runs it: `model.fit` on a replay dataset.

Arguments: TASK, K, [plain|xla|prioritized]. With `plain` it learns plain Q, not double, as
Stable-Baselines3 and SBX do; with `xla` it compiles convolutions by XLA too; with `prioritized` it
draws by priority and feeds TD errors back.
"""

import sys

import keras
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

import keras_dqn

task, updates, double = TASKS[sys.argv[1]], int(sys.argv[2]), "plain" not in sys.argv

layers = [keras.Input(task.observation_shape, dtype="uint8" if task.is_image else "float32")]
if task.is_image:
    layers.append(keras.layers.Rescaling(1 / 255))
    layers += [keras.layers.Conv2D(*sizes, activation="relu") for sizes in CONVOLUTIONS]
    layers.append(keras.layers.Flatten())
layers += [keras.layers.Dense(units, "relu") for units in task.hidden]
network = keras.Sequential([*layers, keras.layers.Dense(task.num_actions)])

buffer = keras_dqn.ReplayBuffer
if "prioritized" in sys.argv:
    buffer = keras_dqn.PrioritizedReplayBuffer
replay = buffer(task.num_transitions * 2, observation_space(task), action_space(task), seed=0)
steps = transitions(task)
for i in range(task.num_transitions):
    replay.add(
        steps["observation"][i],
        steps["action"][i],
        steps["reward"][i],
        steps["terminated"][i],
        False,
        steps["next_observation"][i],
    )

agent = keras_dqn.DQN(network, double=double)
agent.compile(
    keras.optimizers.Adam(LEARNING_RATE),
    steps_per_execution=updates,
    jit_compile=True if "xla" in sys.argv else "auto",
)
dataset = replay.dataset(task.batch_size, gamma=GAMMA)
callbacks = [keras_dqn.SoftTargetUpdate(TAU)]


def work(request):
    count = -(-request["count"] // updates) * updates
    agent.fit(dataset, steps_per_epoch=count, callbacks=callbacks, verbose=0)
    return count


work({"count": updates})
race.serve(work)
