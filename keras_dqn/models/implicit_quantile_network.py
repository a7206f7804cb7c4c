"""`ImplicitQuantileNetwork`: the network of an `ImplicitQuantileDQN`."""

from typing import Any

import keras

from keras_dqn import ops
from keras_dqn.layers.cosine_embedding import CosineEmbedding
from keras_dqn.layers.noise import RandomLayer
from keras_dqn.models.checks import check_torso_and_head
from keras_dqn.networks.inspection import input_shape_of

MIDPOINTS = ops.midpoints(32)[None]  # [1, 32]


@keras.saving.register_keras_serializable(package="keras_dqn")
class ImplicitQuantileNetwork(RandomLayer):
    """Maps observations and fractions to quantiles of the return.

    ```
    quantiles(observation, fraction) = head(torso(observation) * embedding(fraction))
    ```

    Args:
        torso: Keras model or layer that maps observations to features `[B, F]`.
        head: Keras model or layer that maps features `[B, F]` to `[B, A]`.
        num_cosines: Int, cosines of the embedding. Defaults to `64`.
        **kwargs: `seed` of the fractions, and arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        torso: keras.layers.Layer,
        head: keras.layers.Layer,
        num_cosines: int = 64,
        **kwargs: Any,
    ) -> None:
        check_torso_and_head(torso, head)
        super().__init__(autocast=False, **kwargs)  # fractions stay float32; the parts cast
        self.torso = torso
        self.head = head
        self.num_cosines = num_cosines
        if torso.built:
            self.build(input_shape_of(torso))

    def build(self, input_shape: Any) -> None:
        """Builds torso, embedding and head for observations of this shape (or dict of shapes)."""
        features = _build_by_call(self.torso, input_shape)
        if len(features) != 2:
            raise ValueError(
                "`torso` must map observations to features of shape [B, F]. Received: outputs of "
                f"shape {features}"
            )
        self.embedding = CosineEmbedding(features[-1], self.num_cosines, dtype=self.dtype_policy)
        self.embedding.build(MIDPOINTS.shape)
        _build_by_call(self.head, features)

    def call(self, inputs: Any, fractions: Any = None, training: bool | None = False) -> Any:
        """Returns quantiles `[B, A, N]`, or `[B, D, A, N]` if the head has D branches.

        Args:
            inputs: Observations `[B, ...]`.
            fractions: List of `[B, N_i]` or `[1, N_i]` floats in [0, 1]; the sum of all N_i is N.
                Defaults to `None`, 32 midpoints.
            training: Bool or None, for the torso and the head.
        """
        features = keras.ops.expand_dims(self.torso(inputs, training=training), 1)  # [B, 1, F]
        parts = fractions or [MIDPOINTS]
        # `multiply` takes different dtypes: a torso may have a dtype policy of its own.
        mixed = [keras.ops.multiply(features, self.embedding(part)) for part in parts]
        mixed = keras.ops.concatenate(mixed, axis=1) if len(mixed) > 1 else mixed[0]  # [B, N, F]
        num_fractions, num_features = mixed.shape[1:]
        rows = keras.ops.reshape(mixed, (-1, num_features))
        quantiles = self.head(rows, training=training)  # [B * N, A]
        quantiles = keras.ops.reshape(quantiles, (-1, num_fractions, *quantiles.shape[1:]))
        return keras.ops.moveaxis(quantiles, 1, -1)

    def draw(self, observation: Any, num_fractions: int) -> Any:
        """Returns random fractions for a batch, `[B, num_fractions]` float32."""
        batch_size = keras.ops.shape(keras.tree.flatten(observation)[0])[0]
        shape = (batch_size, num_fractions)
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`, including torso and head."""
        return {
            **super().get_config(),
            "torso": keras.saving.serialize_keras_object(self.torso),
            "head": keras.saving.serialize_keras_object(self.head),
            "num_cosines": self.num_cosines,
        }

    @classmethod
    def from_config(cls, config: dict) -> "ImplicitQuantileNetwork":
        """Creates a network from a config that `get_config` returned."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name]) for name in ("torso", "head")
        }
        return cls(**{**config, **parts})


def _build_by_call(layer: keras.layers.Layer, input_shape: Any) -> tuple:
    """Builds a layer, if needed, and returns its output shape. Many layers only define `call`."""
    inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
    if not layer.built:
        layer(inputs)
    try:
        return layer.compute_output_shape(input_shape)
    except NotImplementedError:
        return layer(inputs).shape
