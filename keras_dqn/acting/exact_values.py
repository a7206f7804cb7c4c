"""An agent's action values with the weights that its network has now, by one compiled call."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dqn.acting.agent import Agent


class ExactValues:
    """Computes action values for many observations or for one.

    Args:
        agent: A `DQN`.
    """

    def __init__(self, agent: Agent) -> None:
        def values(observation: Any) -> Any:
            return agent.q_values(agent.outputs_of(agent.network, observation))

        self._values = tf.function(values, autograph=False, reduce_retracing=True)

    def __call__(self, observation: Any, rank: int | None) -> np.ndarray:
        """Returns `[E, A]` float32, or `[A]` for one observation.

        Args:
            observation: `[E, ...]`, or one observation without batch axis; arrays in the network's
                structure.
            rank: Int, the number of axes of one observation, of its first leaf.
        """
        if keras.tree.flatten(observation)[0].ndim != rank:
            return self._values(observation).numpy()
        one = keras.tree.map_structure(lambda array: array[None], observation)
        return self._values(one).numpy()[0]
