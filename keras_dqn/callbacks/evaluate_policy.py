"""`EvaluatePolicy`: greedy episodes at the end of an epoch, as `val_return` in its logs."""

from typing import Any

import keras
import numpy as np

from keras_dqn.acting.environment_stepper import EnvironmentStepper
from keras_dqn.acting.exploration import Greedy
from keras_dqn.acting.policy import policy_of
from keras_dqn.spaces.env_spaces import Environment


class EvaluatePolicy(keras.callbacks.Callback):
    """Plays greedy episodes and puts their mean return into the epoch's logs as `val_return`.

    `EarlyStopping`, `ModelCheckpoint`, `CSVLogger` and the like work on it when they come after it
    in the list of callbacks.

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv`, not the one that is collected from. A vector
            environment plays its share of the episodes in each of its environments, so that short
            episodes are not preferred.
        episodes: Int, at least 1. Defaults to `10`.
        validation_freq: Int, epochs from one evaluation to the next. Defaults to `1`.
        seed: Int or None. An int makes each evaluation begin with the same reset. Defaults to
            `None`.

    Raises:
        ValueError: If an argument is outside its range; when it evaluates, if the network's output
            does not fit the action space.

    Example:
    >>> import gymnasium as gym
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> EvaluatePolicy(gym.make("CartPole-v1"), episodes=2, seed=0).evaluate(model) > 0
    True
    """

    def __init__(
        self,
        env: Environment,
        *,
        episodes: int = 10,
        validation_freq: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if episodes < 1:
            raise ValueError(f"`episodes` must be at least 1. Received: {episodes=}")
        if validation_freq < 1:
            raise ValueError(f"`validation_freq` must be at least 1. Received: {validation_freq=}")
        self._stepper = EnvironmentStepper(env)
        self.env = env
        self.episodes = episodes
        self.validation_freq = validation_freq
        self.seed = seed
        self.episode_returns = np.zeros(0)
        self._greedy = Greedy()
        self._rng = np.random.default_rng(seed)  # a greedy choice draws nothing
        self._policy: Any = None
        self._policy_model: Any = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Evaluates, every `validation_freq` epochs."""
        if (epoch + 1) % self.validation_freq == 0:
            mean_return = self.evaluate(self.model)
            if logs is not None:
                logs["val_return"] = mean_return

    def evaluate(self, model: keras.Model) -> float:
        """Plays the episodes with a model's greedy actions.

        Args:
            model: A `DQN`, or any Keras model that maps observations to `[B, A]` action values.

        Returns:
            Float, the mean return. Those of the episodes are in `episode_returns`, `[episodes]`.
        """
        policy = self._policy_of(model)
        self._stepper.reset(self.seed)
        num_envs = self._stepper.num_envs
        shares = (self.episodes + np.arange(num_envs)[::-1]) // num_envs
        returns: list[float] = []
        running = np.zeros(num_envs)
        while len(returns) < self.episodes:
            step = self._stepper.step_with(policy, self._greedy, self._rng)
            running += step.reward * step.stepped
            for e in np.flatnonzero((step.terminated | step.truncated) & step.stepped):
                if shares[e] > 0:
                    returns.append(float(running[e]))
                    shares[e] -= 1
                running[e] = 0.0
        self.episode_returns = np.array(returns)
        return float(np.mean(returns))

    def _policy_of(self, model: keras.Model) -> Any:
        if self._policy is None or self._policy_model is not model:
            self._policy, self._policy_model = policy_of(model), model
        else:
            self._policy.refresh()
        return self._policy

    def get_state(self) -> dict[str, Any]:
        """Returns the returns of the last evaluation."""
        return {"episode_returns": self.episode_returns.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes the state that `get_state` returned."""
        self.episode_returns = np.array(state["episode_returns"], float)
