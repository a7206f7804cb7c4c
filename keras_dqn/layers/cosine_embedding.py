"""`CosineEmbedding`: turns fractions in [0, 1] into features, for implicit quantile networks."""

from typing import Any

import keras
import numpy as np

from keras_dqn.arguments import check_integer


@keras.saving.register_keras_serializable(package="keras_dqn")
class CosineEmbedding(keras.layers.Layer):
    """Embeds fractions of a distribution.

    ```
    embedding_u = relu(sum_{i=1..n} cos(pi * i * fraction) * kernel_iu + bias_u)
    ```

    The paper counts from i = 0. Its constant feature adds nothing to the bias, so the usual
    implementations begin with 1.

    Args:
        units: Int, size of the embedding.
        num_cosines: Int, number n of cosines. Defaults to `64`, as in the paper.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, N]` floats in [0, 1].

    Returns:
        `[B, N, units]`.

    Raises:
        ValueError: If a number is below 1.

    Reference:
        Dabney et al., 2018, "Implicit quantile networks for distributional reinforcement learning",
        equation 4.
    """

    def __init__(self, units: int, num_cosines: int = 64, **kwargs: Any) -> None:
        # A half has too few digits for the cosine of a large angle, so Keras must not cast inputs.
        super().__init__(autocast=False, **kwargs)
        self.units = check_integer("units", units)
        self.num_cosines = check_integer("num_cosines", num_cosines)
        self.dense = keras.layers.Dense(units, "relu", dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        """Makes the weights for fractions `[B, N]`."""
        self.dense.build((*input_shape, self.num_cosines))

    def call(self, inputs: Any) -> Any:
        """Returns the embeddings `[B, N, units]` of fractions `[B, N]`."""
        frequencies = (np.pi * np.arange(1, self.num_cosines + 1)).astype(np.float32)
        angles = keras.ops.expand_dims(keras.ops.cast(inputs, "float32"), -1) * frequencies
        return self.dense(keras.ops.cast(keras.ops.cos(angles), self.compute_dtype))

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the shape of the outputs."""
        return (*input_shape, self.units)

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "units": self.units, "num_cosines": self.num_cosines}
