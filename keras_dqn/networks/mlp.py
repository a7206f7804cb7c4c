"""`mlp`: makes a network of Dense layers."""

from collections.abc import Callable, Sequence

import gymnasium as gym
import keras

from keras_dqn.arguments import check_bool, check_integer, check_type
from keras_dqn.networks.inputs_and_outputs import apply, output_layers, vector_input


def mlp(
    observation_space: gym.Space,
    num_outputs: int | tuple[int, ...] | None,
    *,
    hidden_units: Sequence[int] = (128, 128),
    activation: str | Callable = "relu",
    layer_normalization: bool = False,
) -> keras.Model:
    """Returns a network of Dense layers, a multilayer perceptron.

    All its layers come from Keras, so a saved network can be loaded without keras_dqn. It takes
    observations as the environment gives them:

    | Space | First layers |
    |---|---|
    | `Box` of floats | flattened, not scaled |
    | `Box` of integers or bools | bounds scaled to [0, 1], flattened |
    | `MultiBinary` | flattened |
    | `Discrete`, `MultiDiscrete` | one-hot |

    For floats with very different bounds, put `keras_dqn.layers.box_rescaling(space)` in front:
    `keras.Sequential([keras.Input(space.shape), box_rescaling(space), mlp(space, 3)])`.

    Args:
        observation_space: Gymnasium space of one observation: `env.observation_space`, or for a
            vector environment `env.single_observation_space`.
        num_outputs: Int, actions A, for outputs `[B, A]`. A tuple `(A, N)` for outputs `[B, A, N]`
            with N atoms or quantiles, `(D, A)` or `(D, A, N)` for D branches of actions. `None` for
            no last layer, so the features `[B, F]` come out: the torso for a head of your own.
        hidden_units: Tuple of ints, units of each hidden layer. Defaults to `(128, 128)`.
        activation: String or function, the activation of the hidden layers. Defaults to `"relu"`.
            The last layer has no activation.
        layer_normalization: Bool, whether a `keras.layers.LayerNormalization` stands between each
            hidden Dense layer and its activation. Defaults to `False`.

    Returns:
        `keras.Model` that maps observations `[B, ...]` to `[B, A]`, `[B, A, N]` or `[B, F]`.

    Raises:
        TypeError: If `observation_space` is another space, such as `Dict`.

    Example:
    >>> env = gym.make("CartPole-v1")
    >>> network = mlp(env.observation_space, env.action_space.n, hidden_units=(64, 64))
    >>> network.output_shape
    (None, 2)
    >>> mlp(gym.spaces.Discrete(16), (4, 51)).output_shape  # 51 atoms of 4 actions
    (None, 4, 51)
    """
    check_type("hidden_units", hidden_units, (tuple, list), "a tuple of integers")
    normalized = check_bool("layer_normalization", layer_normalization)
    inputs, layers = vector_input(observation_space)
    for units in hidden_units:
        layers.append(keras.layers.Dense(check_integer("hidden_units", units)))
        if normalized:
            layers.append(keras.layers.LayerNormalization())
        layers.append(keras.layers.Activation(activation))
    return keras.Model(inputs, apply([*layers, *output_layers(num_outputs)], inputs))
