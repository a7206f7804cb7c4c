"""`HistogramDQN`: what C51 and HL-Gauss share, a distribution of returns over a fixed support."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dqn import ops
from keras_dqn.models.checks import check_known_loss, check_outputs
from keras_dqn.models.dqn import DQN


class HistogramDQN(DQN):
    """A network gives logits `[B, A, N]`: the probabilities of the N values in `support`.

    ```
    Q(observation, a) = sum_i softmax(logits(observation, a))_i * support_i
    loss = cross-entropy of the target probabilities and the softmax of the logits
    ```

    Args:
        network: Keras model (or layer) that maps observations to logits `[B, A, N]`.
        support: `[N]` float32, the values.
        size_name: String, the argument of the subclass that is N, for errors.
        **kwargs: Arguments of `DQN`.
    """

    def __init__(
        self, network: keras.layers.Layer, *, support: NDArray, size_name: str, **kwargs: Any
    ) -> None:
        super().__init__(network, **kwargs)
        self.support = support
        self._size_name = size_name

    def probabilities(self, outputs: Any) -> Any:
        """Returns the probabilities of the values in `support`, `[B, A, N]` float32."""
        check_outputs(outputs, self._size_name, len(self.support))
        return keras.ops.softmax(keras.ops.cast(outputs, "float32"), axis=-1)

    def q_values(self, outputs: Any) -> Any:
        """Returns the expected returns, `[B, A]` float32."""
        return self._mean(self.probabilities(outputs))

    def predict_taken(self, outputs: Any, action: Any) -> Any:
        """Returns the logits of the actions taken, `[B, N]` float32."""
        return ops.take_action(keras.ops.cast(outputs, "float32"), action)

    def td_error(self, target: Any, prediction: Any) -> Any:
        """Returns the expected target - the expected prediction, `[B]` float32, signed."""
        return self._mean(target) - self._mean(keras.ops.softmax(prediction, axis=-1))

    def default_loss(self) -> keras.losses.Loss:
        """Returns the cross-entropy from logits."""
        return keras.losses.CategoricalCrossentropy(from_logits=True)

    def check_loss(self, loss: Any) -> None:
        """Raises a `ValueError` unless a loss takes probabilities and logits."""
        check_known_loss(loss, _takes_logits, "CategoricalCrossentropy(from_logits=True)")

    def _mean(self, probabilities: Any) -> Any:
        return keras.ops.sum(probabilities * self.support, axis=-1)


def _takes_logits(loss: Any) -> bool:
    return isinstance(loss, keras.losses.CategoricalCrossentropy) and bool(
        loss.get_config()["from_logits"]
    )


def evenly_spaced(start: float, stop: float, num: int) -> NDArray[np.float32]:
    """Returns `num` values from `start` to `stop`, `[num]` float32.

    Raises:
        ValueError: If float32 is too coarse for even distances between them.
    """
    values = np.linspace(start, stop, num).astype(np.float32)
    if not np.allclose(np.diff(values), (stop - start) / (num - 1), rtol=0.01, atol=0.0):
        raise ValueError(
            f"`v_min` and `v_max` must be far enough apart for {num} float32 numbers at even "
            f"distances. Received: v_min={start}, v_max={stop}"
        )
    return values
