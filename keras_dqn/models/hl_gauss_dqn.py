"""`HLGaussDQN`: learns action values by classification, from Gaussian histograms."""

from typing import Any

import keras

from keras_dqn import ops
from keras_dqn.arguments import check_integer, check_number
from keras_dqn.models.checks import check_support
from keras_dqn.models.histogram_dqn import HistogramDQN, evenly_spaced


@keras.saving.register_keras_serializable(package="keras_dqn")
class HLGaussDQN(HistogramDQN):
    """Learns action values with a cross-entropy instead of a regression (HL-Gauss).

    ```
    y = reward + discount * max_a Q_target(next_observation, a)
    target_i = probability of bin i under N(y, (sigma_ratio * bin width)^2)
    loss = cross-entropy(target, softmax(logits(observation, action)))
    ```

    The target is that of a plain `DQN`; only its loss and the network's head differ.

    Args:
        network: Keras model (or layer) that maps observations to logits `[B, A, num_bins]`.
        num_bins: Int of at least 2. Defaults to `51`.
        v_min: Float, the lower edge of the first bin.
        v_max: Float, the upper edge of the last bin. Targets outside the edges are clipped to
            them. Leave a margin of a few bins around the returns: a histogram that the edge cuts
            off has another mean than its target.
        sigma_ratio: Float above 0, standard deviation of the Gaussian in bin widths. Defaults to
            `0.75`, as in the paper.
        **kwargs: Arguments of `DQN`, such as `double`.

    Attributes:
        support: `[num_bins]` float32, the centres of the bins.
        edges: `[num_bins + 1]` float32.

    Raises:
        ValueError: If `v_min` is not below `v_max`, or a number is outside its range; when the
            network is called, if its outputs have another shape.

    Example:
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2 * 51), keras.layers.Reshape((2, 51))]
    ... )
    >>> agent = HLGaussDQN(network, v_min=-10.0, v_max=110.0)
    >>> agent.compile(keras.optimizers.Adam(1e-3))

    Reference:
        Farebrother et al., 2024, "Stop regressing: Training value functions via classification for
        scalable deep RL", section 3.1.
    """

    def __init__(
        self,
        network: keras.layers.Layer,
        *,
        num_bins: int = 51,
        v_min: float,
        v_max: float,
        sigma_ratio: float = 0.75,
        **kwargs: Any,
    ) -> None:
        self.num_bins = check_integer("num_bins", num_bins, 2)
        self.v_min, self.v_max = check_support(v_min, v_max)
        self.sigma_ratio = check_number("sigma_ratio", sigma_ratio, 0.0, above=True)
        self.edges = evenly_spaced(self.v_min, self.v_max, self.num_bins + 1)
        half = (self.v_max - self.v_min) / (2 * self.num_bins)
        centres = evenly_spaced(self.v_min + half, self.v_max - half, self.num_bins)
        super().__init__(network, support=centres, size_name="num_bins", **kwargs)

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        sizes = {"num_bins": self.num_bins, "v_min": self.v_min, "v_max": self.v_max}
        return {**super().get_config(), **sizes, "sigma_ratio": self.sigma_ratio}

    def bootstrap(self, transition: dict, next_value: Any) -> Any:
        """Returns the target's probabilities of the bins, `[B, num_bins]` float32."""
        value = super().bootstrap(transition, next_value)[:, 0]
        sigma = self.sigma_ratio * (self.v_max - self.v_min) / self.num_bins
        return ops.gaussian_histogram(value, self.edges, sigma)
