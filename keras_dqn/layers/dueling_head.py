"""`DuelingHead`: computes the value of an observation and the advantages of actions apart."""

from typing import Any

import keras

from keras_dqn.arguments import check_bool, check_integer
from keras_dqn.layers.noisy_dense import NoisyDense


@keras.saving.register_keras_serializable(package="keras_dqn")
class DuelingHead(keras.layers.Layer):
    """The last layer of a Q-network: adds a value and the advantages of all actions.

    ```
    Q(a) = V + A(a) - mean_b A(b)        # aggregate="mean"
    Q(a) = V + A(a) - max_b A(b)         # aggregate="max"
    ```

    With several outputs for each action (atoms, bins or quantiles) the formula holds for each of
    them.

    Args:
        num_actions: Int, number of actions.
        num_outputs: Int, outputs for each action: 1 for a `DQN`, `num_atoms` for a
            `CategoricalDQN`, `num_quantiles` for a `QuantileDQN`. Defaults to `1`.
        aggregate: `"mean"` or `"max"`. Defaults to `"mean"`.
        num_branches: Int D or None, branches of a MultiDiscrete space, each with `num_actions`
            choices. They share the value and have advantages of their own, as in Tavakoli et al.
            (2018). Defaults to `None`, a Discrete space.
        hidden_units: Int or None, units of a hidden ReLU layer in each of the two streams; the
            paper uses 512. Defaults to `None`, no hidden layer.
        noisy: Bool, whether the layers are `NoisyDense` instead of `Dense`. Defaults to `False`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, F]`, features.

    Returns:
        `[B, num_actions]`, or with `num_outputs` above 1 `[B, num_actions, num_outputs]`; with
        branches there is the axis `[D]` after B.

    Raises:
        ValueError: If a number is below 1 or `aggregate` is unknown.

    Example:
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(64, "relu"), DuelingHead(2)]
    ... )
    >>> network.output_shape
    (None, 2)

    Reference:
        Wang et al., 2016, "Dueling network architectures for deep reinforcement learning",
        equations 8 and 9; Tavakoli et al., 2018, "Action branching architectures for deep
        reinforcement learning", equation 1.
    """

    def __init__(
        self,
        num_actions: int,
        num_outputs: int = 1,
        aggregate: str = "mean",
        *,
        num_branches: int | None = None,
        hidden_units: int | None = None,
        noisy: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_actions = check_integer("num_actions", num_actions)
        self.num_outputs = check_integer("num_outputs", num_outputs)
        if aggregate not in ("mean", "max"):
            raise ValueError(f'`aggregate` must be "mean" or "max". Received: {aggregate=}')
        self.aggregate = aggregate
        self.num_branches = num_branches
        if num_branches is not None:
            self.num_branches = check_integer("num_branches", num_branches)
        self.hidden_units = hidden_units
        if hidden_units is not None:
            self.hidden_units = check_integer("hidden_units", hidden_units)
        self.noisy = check_bool("noisy", noisy)
        self.value = self._stream("value", self.num_outputs)
        num_advantages = (self.num_branches or 1) * self.num_actions * self.num_outputs
        self.advantage = self._stream("advantage", num_advantages)

    def _stream(self, name: str, units: int) -> list[keras.layers.Layer]:
        dense: Any = NoisyDense if self.noisy else keras.layers.Dense
        last = dense(units, dtype=self.dtype_policy, name=name)
        if self.hidden_units is None:
            return [last]
        hidden = dense(
            self.hidden_units, activation="relu", dtype=self.dtype_policy, name=f"{name}_hidden"
        )
        return [hidden, last]

    def build(self, input_shape: Any) -> None:
        """Builds both streams for features `[..., F]`."""
        for stream in (self.value, self.advantage):
            shape = input_shape
            for layer in stream:
                layer.build(shape)
                shape = layer.compute_output_shape(shape)

    def call(self, inputs: Any) -> Any:
        """Returns the outputs for features `[B, F]`; Keras hands `training` on to the layers."""
        value = advantage = inputs
        for layer in self.value:
            value = layer(value)
        for layer in self.advantage:
            advantage = layer(advantage)
        value = keras.ops.expand_dims(value, -2)  # [B, 1, N]
        if self.num_branches is not None:
            value = keras.ops.expand_dims(value, -3)
        shape = (*self._branches, self.num_actions, self.num_outputs)
        advantage = keras.ops.reshape(advantage, (*keras.ops.shape(inputs)[:-1], *shape))
        reduce = keras.ops.mean if self.aggregate == "mean" else keras.ops.max
        outputs = value + advantage - reduce(advantage, axis=-2, keepdims=True)
        return keras.ops.squeeze(outputs, -1) if self.num_outputs == 1 else outputs

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the shape of the outputs."""
        last = () if self.num_outputs == 1 else (self.num_outputs,)
        return (*input_shape[:-1], *self._branches, self.num_actions, *last)

    @property
    def _branches(self) -> tuple[int, ...]:
        return () if self.num_branches is None else (self.num_branches,)

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        return {
            **super().get_config(),
            "num_actions": self.num_actions,
            "num_outputs": self.num_outputs,
            "aggregate": self.aggregate,
            "num_branches": self.num_branches,
            "hidden_units": self.hidden_units,
            "noisy": self.noisy,
        }
