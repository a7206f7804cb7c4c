"""`CategoricalDQN`: C51, which learns the probabilities of returns at fixed atoms."""

from typing import Any

import keras

from keras_dqn import ops
from keras_dqn.arguments import check_integer
from keras_dqn.models.checks import check_support
from keras_dqn.models.histogram_dqn import HistogramDQN, evenly_spaced


@keras.saving.register_keras_serializable(package="keras_dqn")
class CategoricalDQN(HistogramDQN):
    """Learns the distribution of returns as probabilities of N evenly spaced atoms (C51).

    ```
    target = projection of (reward + discount * z_i with probability p_target,i(next action))
    loss = cross-entropy(target, softmax(logits(observation, action)))
    ```

    The `td_error` of a row is the difference of expected returns. Its `priority` is the KL
    divergence of target and prediction, because a cross-entropy does not fall to 0 where returns
    are random.

    Args:
        network: Keras model (or layer) that maps observations to logits `[B, A, num_atoms]`.
        num_atoms: Int of at least 2. Defaults to `51`, as in the paper.
        v_min: Float, the return of the first atom.
        v_max: Float, the return of the last atom. Returns outside the atoms are clipped to them;
            the paper uses -10 and 10 for rewards clipped to [-1, 1].
        **kwargs: Arguments of `DQN`, such as `double`.

    Attributes:
        support: `[num_atoms]` float32, the atoms.

    Raises:
        ValueError: If `v_min` is not below `v_max`, or `num_atoms` is below 2; when the network is
            called, if its outputs have another shape.

    Example:
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2 * 51), keras.layers.Reshape((2, 51))]
    ... )
    >>> agent = CategoricalDQN(network, v_min=0.0, v_max=100.0)
    >>> agent.compile(keras.optimizers.Adam(1e-3))

    Reference:
        Bellemare et al., 2017, "A distributional perspective on reinforcement learning",
        Algorithm 1; the priority is that of Hessel et al., 2018, "Rainbow", section "The
        integrated agent".
    """

    def __init__(
        self,
        network: keras.layers.Layer,
        *,
        num_atoms: int = 51,
        v_min: float,
        v_max: float,
        **kwargs: Any,
    ) -> None:
        self.num_atoms = check_integer("num_atoms", num_atoms, 2)
        self.v_min, self.v_max = check_support(v_min, v_max)
        atoms = evenly_spaced(self.v_min, self.v_max, self.num_atoms)
        super().__init__(network, support=atoms, size_name="num_atoms", **kwargs)

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        sizes = {"num_atoms": self.num_atoms, "v_min": self.v_min, "v_max": self.v_max}
        return {**super().get_config(), **sizes}

    def next_values(self, outputs: Any) -> Any:
        """Returns the probabilities of the atoms, `[B, A, num_atoms]` float32."""
        return self.probabilities(outputs)

    def bootstrap(self, transition: dict, next_value: Any) -> Any:
        """Returns the target's probabilities of the atoms, `[B, num_atoms]` float32."""
        atoms = keras.ops.broadcast_to(self.support[None], keras.ops.shape(next_value))
        moved = ops.td_target(transition["reward"], transition["discount"], atoms)
        return ops.project(next_value, moved, self.support)

    def priority(self, target: Any, prediction: Any) -> Any:
        """Returns the KL divergence of each row's target and prediction, `[B]` float32."""
        return ops.kl_divergence(target, prediction)
