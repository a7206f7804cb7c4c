"""`Munchausen`: the numbers of the rule that rewards an action for its log-probability."""

import keras

from keras_dqn.arguments import check_number


@keras.saving.register_keras_serializable(package="keras_dqn")
class Munchausen:
    """Munchausen Q-learning, for `DQN(network, munchausen=Munchausen())` and all its subclasses.

    ```
    pi = softmax(Q_target / temperature)
    y = reward + alpha * max(clip, temperature * log pi(action | observation))
        + discount * sum_a pi(a | next_observation)
          * (Q_target(next_observation, a) - temperature * log pi(a | next_observation))
    ```

    A distribution replaces the Q of this formula by its atoms or quantiles, which are averaged over
    actions with the weights pi. With n-step rewards the bonus is that of the first action.

    Args:
        alpha: Float in [0, 1], the weight of the bonus. Defaults to `0.9`.
        temperature: Float above 0, in units of return. Defaults to `0.03`.
        clip: Float below 0, in units of return, the smallest `temperature * log pi`. Defaults to
            `-1.0`.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is outside its range.

    Reference:
        Vieillard et al., 2020, "Munchausen reinforcement learning", equation 1; the defaults are
        those of its experiments on Atari, with rewards clipped to [-1, 1].
    """

    def __init__(self, alpha: float = 0.9, temperature: float = 0.03, clip: float = -1.0) -> None:
        self.alpha = check_number("alpha", alpha, 0.0, 1.0)
        self.temperature = check_number("temperature", temperature, 0.0, above=True)
        self.clip = check_number("clip", clip)
        if clip >= 0.0:
            raise ValueError(f"`clip` must be below 0. Received: clip={clip}")

    def get_config(self) -> dict[str, float]:
        """Returns the arguments for `from_config`."""
        return {"alpha": self.alpha, "temperature": self.temperature, "clip": self.clip}

    @classmethod
    def from_config(cls, config: dict) -> "Munchausen":
        """Creates the rule from a config that `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={value}" for name, value in self.get_config().items())
        return f"Munchausen({numbers})"
