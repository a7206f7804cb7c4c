"""TF-Agents: its DdqnAgent, compiled, on its own buffer's dataset. Arguments: TASK.

It runs on Keras 2, so `TF_USE_LEGACY_KERAS=1` is set here.
"""

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import race
import tensorflow as tf
from learner_task import CONVOLUTIONS, GAMMA, LEARNING_RATE, TASKS, TAU, transitions
from tf_agents.agents.dqn.dqn_agent import DdqnAgent
from tf_agents.networks.q_network import QNetwork
from tf_agents.replay_buffers.tf_uniform_replay_buffer import TFUniformReplayBuffer
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import StepType, Trajectory, time_step_spec
from tf_agents.utils import common

task = TASKS[sys.argv[1]]
steps = transitions(task)
observation_spec = tf.TensorSpec(task.observation_shape, tf.float32)
if task.is_image:
    # 254, since it draws an example below the maximum plus one, which 256 overflows.
    observation_spec = BoundedTensorSpec(task.observation_shape, tf.uint8, 0, 254)
action_spec = BoundedTensorSpec((), tf.int32, 0, task.num_actions - 1)
network = QNetwork(
    observation_spec,
    action_spec,
    preprocessing_layers=tf.keras.layers.Rescaling(1 / 255) if task.is_image else None,
    conv_layer_params=CONVOLUTIONS if task.is_image else None,
    fc_layer_params=task.hidden,
)
agent = DdqnAgent(
    time_step_spec(observation_spec),
    action_spec,
    q_network=network,
    optimizer=tf.keras.optimizers.Adam(LEARNING_RATE),
    td_errors_loss_fn=common.element_wise_huber_loss,
    gamma=GAMMA,
    target_update_tau=TAU,
)
agent.initialize()
train = common.function(agent.train)

replay = TFUniformReplayBuffer(
    agent.collect_data_spec, batch_size=1, max_length=task.num_transitions
)
ended = np.concatenate([[True], steps["terminated"][:-1]])
for i in range(task.num_transitions):
    last = steps["terminated"][i]
    trajectory = Trajectory(
        step_type=StepType.FIRST if ended[i] else StepType.MID,
        observation=steps["observation"][i],
        action=steps["action"][i],
        policy_info=(),
        next_step_type=StepType.LAST if last else StepType.MID,
        reward=steps["reward"][i],
        discount=np.float32(1 - last),
    )
    replay.add_batch(
        tf.nest.map_structure(lambda leaf: tf.convert_to_tensor(leaf)[None], trajectory)
    )
batches = iter(replay.as_dataset(sample_batch_size=task.batch_size, num_steps=2).prefetch(3))


def work(request):
    for _ in range(request["count"]):
        experience, _ = next(batches)
        loss = train(experience).loss
    loss.numpy()
    return request["count"]


work({"count": 2})
race.serve(work)
