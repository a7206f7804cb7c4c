"""Converts TF-Agents' trajectories to the transitions that `fit` takes.

A frame of a trajectory holds an observation, the action taken from it, and the action's reward and
discount; the next frame holds the next observation. The final observation of an episode is a
boundary frame, of step type LAST. Trajectories are `[B, T, ...]`: T frames, so n = T - 1 steps.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_dqn.replay.checks import check_sampling
from keras_dqn.replay.replay_dataset import never_ahead
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.observation_spec import ObservationSpec

INSTALL_COMMAND = (
    "python -m pip install tensorflow-probability tf-keras gym gin-config pillow && "
    "python -m pip install --no-deps tf-agents==0.19.0"
)
FIRST, MID, LAST = 0, 1, 2  # tf_agents.trajectories.StepType


def transitions_from_trajectories(dataset: tf.data.Dataset, gamma: float) -> tf.data.Dataset:
    """Returns the transitions of a dataset of TF-Agents trajectories, for `fit`.

    ```
    reward   = r_0 + gamma d_0 r_1 + ... + gamma^(m-1) d_0 ... d_(m-2) r_(m-1)
    discount = gamma^m d_0 ... d_(m-1)
    ```

    The d are the trajectory's own discounts. They do not include the agent's gamma, and are 0 at a
    termination. If the episode ends within the n steps, m < n. A row has weight 0 if it starts at a
    boundary frame, or if it stops where the next observation is not stored (because boundary frames
    were filtered out). Such a row still counts in the means of the logs.

    Args:
        dataset: `tf.data.Dataset` of trajectories `[B, T, ...]`, or of tuples that begin with one,
            such as `TFUniformReplayBuffer.as_dataset(sample_batch_size=B, num_steps=n + 1)`.
        gamma: Float in [0, 1], the discount of one environment step.

    Returns:
        `tf.data.Dataset` of `(observation, transition, weight)`, as from `ReplayBuffer.dataset`.

    Raises:
        ValueError: If `gamma` is outside [0, 1], or the elements are not such trajectories.

    Example:
    ```
    trajectories = replay_buffer.as_dataset(sample_batch_size=64, num_steps=2)
    agent.fit(transitions_from_trajectories(trajectories, gamma=0.99), steps_per_epoch=1_000)
    ```

    Reference:
        Sutton & Barto, 2018, "Reinforcement Learning", equation 7.1; see `ReplayBuffer` for the
        ends of episodes.
    """
    check_sampling(1, gamma, 1)
    _check_trajectories(_trajectory_of(dataset.element_spec), dataset.element_spec)

    @tf.autograph.experimental.do_not_convert
    def transitions(*element: Any) -> tuple:
        return _transitions(_trajectory_of(element), gamma)

    return never_ahead(dataset.map(transitions))


def _transitions(trajectory: Any, gamma: float) -> tuple:
    step_type, next_step_type = trajectory.step_type, trajectory.next_step_type
    # A step is in the window if neither its own frame nor a frame before it ends an episode.
    goes_on = (next_step_type[:, :-2] != LAST) & (step_type[:, 1:-1] == MID)
    starts = step_type[:, :1] != LAST
    runs = tf.math.cumprod(tf.cast(tf.concat([starts, goes_on], axis=1), tf.float32), axis=1)
    discounts = tf.where(runs > 0, gamma * tf.cast(trajectory.discount[:, :-1], tf.float32), 1.0)
    rewards = runs * tf.cast(trajectory.reward[:, :-1], tf.float32)
    discount = tf.reduce_prod(discounts, axis=1)
    steps = tf.cast(tf.reduce_sum(runs, axis=1), tf.int32)  # m
    has_next = tf.gather(step_type, steps, batch_dims=1) != FIRST
    transition = {
        "action": tf.cast(trajectory.action[:, 0], tf.int32),
        "reward": tf.reduce_sum(rewards * tf.math.cumprod(discounts, 1, exclusive=True), axis=1),
        "discount": discount,
        "next_observation": tf.nest.map_structure(
            lambda leaf: tf.gather(leaf, steps, batch_dims=1), trajectory.observation
        ),
    }
    observation = tf.nest.map_structure(lambda leaf: leaf[:, 0], trajectory.observation)
    valid = starts[:, 0] & (has_next | (discount == 0.0))
    return observation, transition, tf.cast(valid, tf.float32)


def _trajectory_of(element: Any) -> Any:
    """Returns the trajectory of an element, or the part that should be one."""
    while not hasattr(element, "next_step_type") and isinstance(element, tuple) and element:
        element = element[0]
    return element


def _check_trajectories(trajectory: Any, element_spec: Any) -> None:
    if not hasattr(trajectory, "next_step_type"):
        raise ValueError(
            "`dataset` must have TF-Agents trajectories as its elements, or tuples that begin with "
            f"one. Received: {element_spec}"
        )
    shape = trajectory.action.shape
    if shape.rank != 2 or (shape[1] is not None and shape[1] < 2):
        raise ValueError(
            "`dataset` must have trajectories [B, T, ...] of at least 2 frames, and one action per "
            "frame: `as_dataset(sample_batch_size=B, num_steps=n + 1)`. Received: actions of shape "
            f"{shape}"
        )


def trajectory_spec(observation_spec: ObservationSpec, action_spec: ActionSpec) -> Any:
    """Returns the TF-Agents spec of one frame.

    Raises:
        ImportError: If TF-Agents is not installed.
    """
    try:
        from tf_agents.specs import BoundedTensorSpec
        from tf_agents.trajectories import Trajectory
    except ModuleNotFoundError as error:
        raise ImportError(f"`TFAgentsReplayBuffer` needs TF-Agents: {INSTALL_COMMAND}") from error
    leaves = [tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in observation_spec.leaves]
    step_type = tf.TensorSpec((), tf.int32)
    return Trajectory(
        step_type=step_type,
        observation=observation_spec.pack(leaves),
        action=BoundedTensorSpec((), tf.int64, 0, action_spec.num_actions - 1),
        policy_info=(),
        next_step_type=step_type,
        reward=tf.TensorSpec((), tf.float32),
        discount=BoundedTensorSpec((), tf.float32, 0.0, 1.0),
    )


def check_holds_trajectories(replay_buffer: Any, expected: Any) -> None:
    """Raises a `ValueError` unless the items of a TF-Agents buffer fit the expected spec."""
    data_spec = replay_buffer.data_spec

    def shapes(spec: Any) -> Any:
        return keras.tree.map_structure(lambda leaf: tuple(leaf.shape), tuple(spec))

    is_trajectory = hasattr(data_spec, "next_step_type")
    if not is_trajectory or shapes(data_spec) != shapes(expected):
        raise ValueError(
            "`replay_buffer` must hold trajectories of the spaces, with no `policy_info`. "
            f"Received: data_spec={data_spec}, expected: {expected}"
        )
    dtypes = [
        [leaf.dtype for leaf in keras.tree.flatten(spec.observation)]
        for spec in (data_spec, expected)
    ]
    if dtypes[0] != dtypes[1]:
        raise ValueError(
            "`replay_buffer` must hold observations of the space's dtypes. Received: "
            f"{dtypes[0]}, expected: {dtypes[1]}"
        )
    bounds = tuple(getattr(data_spec.action, name, None) for name in ("minimum", "maximum"))
    if bounds != (0, expected.action.maximum):
        raise ValueError(
            "`replay_buffer` must hold 0-based actions, as many as the action space has. Received: "
            f"actions from {bounds[0]} to {bounds[1]}, expected: 0 to {expected.action.maximum}"
        )
