"""`QuantileDQN`: QR-DQN, which learns quantiles of returns."""

from typing import Any

import keras

from keras_dqn.arguments import check_integer
from keras_dqn.losses import QuantileHuber
from keras_dqn.models.checks import check_known_loss, check_outputs
from keras_dqn.models.dqn import DQN


class QuantileLoss:
    """The loss of agents that predict quantiles."""

    def default_loss(self) -> keras.losses.Loss:
        """Returns the quantile Huber loss."""
        return QuantileHuber()

    def check_loss(self, loss: Any) -> None:
        """Raises a `ValueError` unless a loss compares quantiles with samples."""
        check_known_loss(loss, lambda known: isinstance(known, QuantileHuber), "QuantileHuber")


@keras.saving.register_keras_serializable(package="keras_dqn")
class QuantileDQN(QuantileLoss, DQN):
    """Learns the distribution of returns as N quantiles of equal probability (QR-DQN).

    ```
    y_j = reward + discount * z_target,j(next_observation, next action)
    loss = sum_i mean_j |fraction_i - (y_j < z_i)| * huber(y_j - z_i),  z = z(observation, action)
    Q(observation, a) = mean_i z_i(observation, a)
    ```

    Args:
        network: Keras model (or layer) that maps observations to `[B, A, num_quantiles]`.
        num_quantiles: Int. Defaults to `51`, which suits a CPU; the paper uses 200.
        **kwargs: Arguments of `DQN`, such as `double`.

    Raises:
        ValueError: If `num_quantiles` is below 1; when the network is called, if its outputs have
            another shape.

    Example:
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2 * 51), keras.layers.Reshape((2, 51))]
    ... )
    >>> agent = QuantileDQN(network)
    >>> agent.compile(keras.optimizers.Adam(1e-3))

    Reference:
        Dabney et al., 2018, "Distributional reinforcement learning with quantile regression",
        Algorithm 1.
    """

    def __init__(
        self, network: keras.layers.Layer, *, num_quantiles: int = 51, **kwargs: Any
    ) -> None:
        self.num_quantiles = check_integer("num_quantiles", num_quantiles)
        super().__init__(network, **kwargs)

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "num_quantiles": self.num_quantiles}

    def q_values(self, outputs: Any) -> Any:
        """Returns the means of the quantiles, `[B, A]` float32."""
        return keras.ops.mean(self.next_values(outputs), axis=-1)

    def next_values(self, outputs: Any) -> Any:
        """Returns the quantiles, `[B, A, num_quantiles]` float32."""
        check_outputs(outputs, "num_quantiles", self.num_quantiles)
        return keras.ops.cast(outputs, "float32")
