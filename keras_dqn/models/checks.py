"""Checks that an agent's network fits a replay buffer, and the ranks of the loss's tensors."""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dqn.arguments import check_number, check_type
from keras_dqn.models.munchausen import Munchausen
from keras_dqn.replay.protocols import Replay
from keras_dqn.spaces.action_mask import check_mask_space
from keras_dqn.spaces.action_spec import ActionSpec

_LARGEST = 1e30  # of a return: sums of such numbers stay finite in float32


def check_network_fits(agent: Any, replay: Replay) -> ActionSpec:
    """Builds an agent for a buffer's observations if it is not built, and checks its outputs.

    Returns the `ActionSpec` of the buffer's actions.

    Args:
        agent: A `DQN`.
        replay: A `ReplayBuffer` or another `Replay`.

    Raises:
        ValueError: If the network refuses the observations, if its number of values is not the
            number of actions, or if the agent's `action_start` or `branch_sizes` is of another
            action space.
    """
    action_spec = ActionSpec(replay.action_space)
    if agent.action_mask is not None:
        check_mask_space(replay.observation_space, agent.action_mask, action_spec.values_shape)
    observation, _, _ = replay.empty_batch()
    agent.build_for(observation)
    inputs = keras.tree.map_structure(
        lambda array: keras.KerasTensor((None, *array.shape[1:]), array.dtype.name), observation
    )
    try:
        outputs = agent.compute_output_spec(inputs)
    except Exception as error:
        raise ValueError(
            "`network` must take the observations of the replay buffer. Received: observations "
            f"{inputs}, which it refuses: {error}"
        ) from error
    values_shape = tuple(agent.q_values(outputs).shape[1:])
    if values_shape != action_spec.values_shape:
        received = f"{values_shape[0]} values" if len(values_shape) == 1 else f"{values_shape}"
        if action_spec.shape:
            raise ValueError(
                f"`network` must give values of shape {action_spec.values_shape}, branches first, "
                f"for {action_spec.space}. Received: {received}"
            )
        raise ValueError(
            f"`network` must give one value for each of the {action_spec.num_actions} actions of "
            f"the replay buffer's action space. Received: {received}"
        )
    for name, own, theirs in (
        ("action_start", agent.action_start or None, action_spec.start),
        ("branch_sizes", agent.branch_sizes, action_spec.branch_sizes),
    ):
        if own is not None and own != theirs:
            raise ValueError(
                f"`{name}` must be that of the replay buffer's action space: the agent learned "
                f"with another one. Received: {name}={own}, {action_spec.space}"
            )
    return action_spec


def check_munchausen(munchausen: Any, double: bool) -> Munchausen | None:
    """Returns the rule, or refuses anything but None or a rule without `double`."""
    if munchausen is None:
        return None
    check_type("munchausen", munchausen, Munchausen, "a keras_dqn.Munchausen or None")
    if double:
        raise ValueError(
            "`double` must be False with `munchausen`: its next actions are drawn from the target "
            f"network's policy, so no network chooses one. Received: double={double}, "
            f"munchausen={munchausen}"
        )
    return munchausen


def check_known_loss(loss: Any, fits: Callable[[Any], bool], expected: str) -> None:
    """Raises a `ValueError` for a loss of Keras or this package that does not fit; takes others.

    Args:
        loss: The argument of `compile`.
        fits: Function that says whether a loss object fits.
        expected: String, the loss that fits.
    """
    found = keras.losses.get(loss) if isinstance(loss, str) else loss
    owner = found if isinstance(found, FunctionType) else type(found)
    known = owner.__module__.split(".")[0] in ("keras", "keras_dqn")
    if known and not fits(found):
        raise ValueError(
            f"`loss` must be {expected} or a loss of your own, because predictions are "
            f'distributions; "auto" is one that fits. Received: loss={loss}'
        )


def check_outputs(outputs: Any, name: str, size: int) -> None:
    """Raises a `ValueError` unless outputs are one tensor `[B, A, size]` or `[B, D, A, size]`."""
    shapes = keras.tree.map_structure(lambda tensor: tuple(tensor.shape), outputs)
    if keras.tree.is_nested(outputs) or len(shapes) not in (3, 4) or shapes[-1] != size:
        raise ValueError(
            f"`network` must map observations to outputs of shape [B, A, {size}], because "
            f"`{name}` is {size}. Received: outputs of shape {shapes}"
        )


def check_torso_and_head(torso: Any, head: Any) -> None:
    """Raises a `TypeError` unless both are Keras layers."""
    for name, layer in (("torso", torso), ("head", head)):
        check_type(name, layer, keras.layers.Layer, "a Keras model or layer")


def check_risk(risk: Any, midpoints: NDArray) -> NDArray[np.float32]:
    """Returns the fractions to which a risk distortion maps the midpoints, `[1, N]` float32."""
    if risk is None:
        return midpoints
    if not callable(risk):
        raise TypeError(f"`risk` must be a function of fractions or None. Received: {risk=}")
    fractions = np.asarray(risk(midpoints[0]), np.float32)[None]
    if fractions.shape != midpoints.shape or not ((fractions >= 0) & (fractions <= 1)).all():
        raise ValueError(
            f"`risk` must map {midpoints.size} fractions to {midpoints.size} in [0, 1]. Received: "
            f"{fractions}"
        )
    return fractions


def check_support(v_min: Any, v_max: Any) -> tuple[float, float]:
    """Returns the ends of a range of returns as floats; the first must be smaller."""
    v_min, v_max = (
        check_number(name, value, -_LARGEST, _LARGEST)
        for name, value in (("v_min", v_min), ("v_max", v_max))
    )
    if v_min >= v_max:
        raise ValueError(f"`v_min` must be below `v_max`. Received: v_min={v_min}, v_max={v_max}")
    return v_min, v_max


def check_action_values(outputs: Any) -> None:
    """Raises a `ValueError` unless a network's outputs are one tensor `[B, A]` or `[B, D, A]`."""
    shapes = keras.tree.map_structure(lambda tensor: tuple(tensor.shape), outputs)
    if keras.tree.is_nested(outputs) or len(outputs.shape) not in (2, 3):
        raise ValueError(
            "`network` must map observations to action values of shape [B, A]. Received: "
            f"outputs of shape {shapes}"
        )


def takes_third_argument(method: Callable) -> bool:
    """Returns whether a method can be called with three arguments; an override may take two."""
    try:
        inspect.signature(method).bind(None, None, None)
    except TypeError:
        return False
    return True


def check_branches(q_values: Any, action: Any) -> None:
    """Raises a `ValueError` unless actions `[B]` meet values `[B, A]`, or `[B, D]` `[B, D, A]`."""
    if len(q_values.shape) != len(action.shape) + 1:
        expected = "[B, A]" if len(action.shape) == 1 else "[B, D, A]"
        raise ValueError(
            f"`network` must map observations to action values of shape {expected}, because the "
            f"actions of a batch have shape {tuple(action.shape)}. Received: action values of "
            f"shape {tuple(q_values.shape)}"
        )


def check_ranks(target: Any, prediction: Any) -> None:
    """Raises a `ValueError` for a `[B]` target or prediction: a loss would average over B."""
    for name, tensor in (("compute_target", target), ("predict_taken", prediction)):
        if len(tensor.shape) < 2:
            raise ValueError(
                f"`{name}` must return a tensor of shape [B, 1] or [B, N]: a Keras loss takes its "
                "mean over the last axis before it applies the weights. Received: shape="
                f"{tuple(tensor.shape)}"
            )
