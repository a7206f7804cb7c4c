"""`ImplicitQuantileDQN`: IQN, which learns the quantile function of returns."""

from typing import Any

import keras

from keras_dqn import ops
from keras_dqn.arguments import check_integer, check_seed
from keras_dqn.layers.noise import is_drawing
from keras_dqn.models.checks import check_risk
from keras_dqn.models.dqn import DQN
from keras_dqn.models.implicit_quantile_network import MIDPOINTS, ImplicitQuantileNetwork
from keras_dqn.models.quantile_dqn import QuantileLoss


@keras.saving.register_keras_serializable(package="keras_dqn")
class ImplicitQuantileDQN(QuantileLoss, DQN):
    """Learns the quantiles of returns at random fractions (IQN).

    ```
    z(observation, a, fraction) = head(torso(observation) * embedding(fraction))_a
    y_j = reward + discount * z_target(next_observation, next action, fraction'_j)
    loss = sum_i mean_j |fraction_i - (y_j < z_i)| * huber(y_j - z_i),  z_i at fraction_i
    Q(observation, a) = mean of z(observation, a, fraction) over 32 fixed midpoints
    ```

    Actions (also the target's) and evaluations use the midpoints, so `act` is exact. Outputs are a
    dict: `q_values` `[B, A]`, and `quantiles` `[B, A, N, 2]`, each quantile with its fraction.

    Args:
        torso: Keras model or layer that maps observations to features `[B, F]`.
        head: Keras model or layer that maps features `[B, F]` to `[B, A]`, or `[B, D, A]`.
        num_cosines: Int, cosines of the embedding. Defaults to `64`, as in the paper.
        num_quantiles: Int, fractions of the online network. Defaults to `8`; the paper uses 64.
        num_target_quantiles: Int, the same of the target network. Defaults to `8`; the paper: 64.
        risk: Callable or None. It maps the midpoints, `[32]` floats in (0, 1), to the fractions by
            whose mean quantile the agent acts. `lambda f: 0.25 * f` acts by the worst quarter.
            Targets stay neutral. To be saved, it must be registered. Defaults to `None`.
        seed: Int or None, for the fractions. Defaults to `None`.
        **kwargs: Arguments of `DQN`, such as `double`.

    Raises:
        TypeError: If `torso` or `head` is not a Keras layer, or `risk` is not callable.
        ValueError: If a number is below 1, or if `torso` does not give features `[B, F]`.

    Example:
    >>> torso = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64, "relu")])
    >>> agent = ImplicitQuantileDQN(torso, keras.layers.Dense(2))

    Reference:
        Dabney et al., 2018, "Implicit quantile networks for distributional reinforcement learning",
        section 3 and Algorithm 1.
    """

    def __init__(
        self,
        torso: keras.layers.Layer,
        head: keras.layers.Layer,
        *,
        num_cosines: int = 64,
        num_quantiles: int = 8,
        num_target_quantiles: int = 8,
        risk: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.num_cosines = check_integer("num_cosines", num_cosines)
        self.seed = check_seed(seed)
        super().__init__(ImplicitQuantileNetwork(torso, head, num_cosines, seed=seed), **kwargs)
        self.num_quantiles = check_integer("num_quantiles", num_quantiles)
        self.num_target_quantiles = check_integer("num_target_quantiles", num_target_quantiles)
        self.risk = risk
        self.acting_fractions = check_risk(risk, MIDPOINTS)

    def outputs_of(self, network: Any, observation: Any, training: bool | None = False) -> dict:
        """Returns `q_values` `[B, A]` and `quantiles` `[B, A, N, 2]`, float32."""
        if not is_drawing():
            parts = [MIDPOINTS] if self.risk is None else [MIDPOINTS, self.acting_fractions]
        elif training:  # the values of the online network are only for the metrics
            parts = [network.draw(observation, self.num_quantiles)]
        else:
            parts = [network.draw(observation, self.num_target_quantiles), MIDPOINTS]
        values = keras.ops.cast(network(observation, parts, training=training), "float32")
        quantiles, valued = values[..., : parts[0].shape[1]], values[..., -parts[-1].shape[1] :]
        ones = [1] * (len(values.shape) - 2)  # for the axis of actions, and that of branches
        fractions = keras.ops.reshape(parts[0], (-1, *ones, parts[0].shape[1]))
        fractions = keras.ops.zeros_like(quantiles) + fractions
        pairs = keras.ops.stack([quantiles, fractions], axis=-1)
        return {"q_values": keras.ops.mean(valued, axis=-1), "quantiles": pairs}

    def q_values(self, outputs: Any) -> Any:
        """Returns the action values, `[B, A]` float32."""
        return outputs["q_values"]

    def next_values(self, outputs: Any) -> Any:
        """Returns the quantiles, `[B, A, N]` float32."""
        return outputs["quantiles"][..., 0]

    def predict_taken(self, outputs: Any, action: Any) -> Any:
        """Returns quantiles and fractions of the actions taken, `[B, N, 2]` float32."""
        return ops.take_action(outputs["quantiles"], action)

    def td_error(self, target: Any, prediction: Any) -> Any:
        """Returns the expected target - the expected prediction, `[B]` float32, signed."""
        return super().td_error(target, prediction[..., 0])

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`, including torso and head."""
        config, parts = super().get_config(), self.network.get_config()
        del config["network"]
        return {
            **config,
            **{name: parts[name] for name in ("torso", "head", "num_cosines", "seed")},
            "num_quantiles": self.num_quantiles,
            "num_target_quantiles": self.num_target_quantiles,
            "risk": keras.saving.serialize_keras_object(self.risk),
        }
