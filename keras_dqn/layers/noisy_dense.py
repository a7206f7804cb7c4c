"""`NoisyDense`: a Dense layer that explores by noise in its weights."""

import math
from typing import Any

import keras

from keras_dqn.arguments import check_bool, check_integer, check_number, check_seed
from keras_dqn.layers.noise import RandomLayer, given_noise, is_drawing


@keras.saving.register_keras_serializable(package="keras_dqn")
class NoisyDense(RandomLayer):
    """A Dense layer with factorised Gaussian noise, whose size is learned.

    ```
    kernel = mu + sigma * outer(f(e_in), f(e_out)),  f(e) = sign(e) * sqrt(|e|)
    bias = mu_bias + sigma_bias * f(e_out)
    outputs = activation(inputs @ kernel + bias)
    ```

    In `DQN.fit` each pass of a network draws once for the whole batch: the online network, the
    target network, and the online network again when it chooses the next action of double
    Q-learning. With the exploration rule `NoisyGreedy` a collector draws once per step for each
    environment, so the environments of a vector do not share a draw. `act`, `policy()`, exported
    programs and evaluations use `mu`. In other Keras models the layer draws if `training=True`.

    Noise is no weight: target updates do not copy it. The position of its random generator is
    saved, so a loaded agent draws what comes next.

    Args:
        units: Int, size of the output.
        activation: As in `keras.layers.Dense`. Defaults to `None`.
        use_bias: Bool. Defaults to `True`.
        sigma0: Float of at least 0. The first `sigma` is `sigma0 / sqrt(inputs)`. Defaults to
            `0.5`, as in the paper.
        seed: Int or None. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `units` is below 1 or `sigma0` below 0.

    Example:
    >>> layer = NoisyDense(3, seed=0)
    >>> x = keras.ops.ones((2, 4))
    >>> bool(keras.ops.all(layer(x) == layer(x)))
    True
    >>> bool(keras.ops.any(layer(x, training=True) == layer(x, training=True)))
    False

    Reference:
        Fortunato et al., 2018, "Noisy networks for exploration", equations 10 and 11, section 3.2.
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        *,
        use_bias: bool = True,
        sigma0: float = 0.5,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=check_seed(seed), **kwargs)
        self.units = check_integer("units", units)
        self.activation = keras.activations.get(activation)
        self.use_bias = check_bool("use_bias", use_bias)
        self.sigma0 = check_number("sigma0", sigma0, 0.0)

    def build(self, input_shape: Any) -> None:
        """Makes the weights for inputs `[..., F]`."""
        self.inputs = input_shape[-1]
        self.noise_size = self.inputs + self.units  # of one draw
        limit = 1.0 / math.sqrt(self.inputs)
        sigma = keras.initializers.Constant(self.sigma0 * limit)

        def weight(name: str, shape: tuple, initializer: Any = None) -> Any:
            initializer = initializer or keras.initializers.RandomUniform(-limit, limit)
            return self.add_weight(name=name, shape=shape, initializer=initializer)

        self.kernel = weight("kernel", (self.inputs, self.units))
        self.kernel_sigma = weight("kernel_sigma", (self.inputs, self.units), sigma)
        if self.use_bias:
            self.bias = weight("bias", (self.units,))
            self.bias_sigma = weight("bias_sigma", (self.units,), sigma)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns `[..., units]` for inputs `[..., F]`."""
        given = given_noise(self)
        if given is not None:
            return self._with_own_noise(inputs, *self._factors(given))
        kernel, bias = self.kernel, self.bias if self.use_bias else 0.0
        if training or is_drawing():
            normal = keras.random.normal((self.noise_size,), seed=self.seed_generator)
            noise_in, noise_out = self._factors(scaled(normal))
            kernel = kernel + self.kernel_sigma * keras.ops.outer(noise_in, noise_out)
            bias = bias + self.bias_sigma * noise_out if self.use_bias else 0.0
        return self.activation(keras.ops.matmul(inputs, kernel) + bias)

    def _factors(self, noise: Any) -> tuple[Any, Any]:
        noise = keras.ops.cast(noise, self.compute_dtype)
        return noise[..., : self.inputs], noise[..., self.inputs :]

    def _with_own_noise(self, inputs: Any, noise_in: Any, noise_out: Any) -> Any:
        """Computes the outputs with noise `[E, F]`; each environment may have several rows."""
        rows = keras.ops.reshape(inputs, (keras.ops.shape(noise_in)[0], -1, self.inputs))
        noise_in, noise_out = noise_in[:, None], noise_out[:, None]
        outputs = keras.ops.matmul(rows, self.kernel)
        outputs += keras.ops.matmul(rows * noise_in, self.kernel_sigma) * noise_out
        if self.use_bias:
            outputs += self.bias + self.bias_sigma * noise_out
        shape = (*keras.ops.shape(inputs)[:-1], self.units)
        return self.activation(keras.ops.reshape(outputs, shape))

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the shape of the outputs."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "sigma0": self.sigma0,
        }


def scaled(normal: Any) -> Any:
    """Returns `sign(x) * sqrt(|x|)`, the noise of a factor: equation 11 of the paper."""
    return keras.ops.sign(normal) * keras.ops.sqrt(keras.ops.abs(normal))
