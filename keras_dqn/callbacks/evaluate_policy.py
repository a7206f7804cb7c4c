"""`EvaluatePolicy`: plays episodes at the end of an epoch and logs their mean as `val_return`."""

from typing import Any

import keras
import numpy as np

from keras_dqn.acting.environment_stepper import EnvironmentStepper
from keras_dqn.acting.episodes import Episodes
from keras_dqn.acting.exploration import Exploration, Greedy
from keras_dqn.acting.policy import policy_of
from keras_dqn.arguments import check_integer, check_seed, check_type
from keras_dqn.spaces.env_spaces import Environment


class EvaluatePolicy(keras.callbacks.Callback):
    """Plays greedy episodes and puts their mean return into the epoch's logs as `val_return`.

    It also logs `val_return_std`, the standard deviation of the returns, and `val_length`, the mean
    length in environment steps. `EarlyStopping`, `ModelCheckpoint`, `CSVLogger` and other callbacks
    can read these values if they come after this one in the list of callbacks.

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv`, not the one that collects transitions. In a vector
            environment, each environment plays its share of the episodes, so that short episodes
            are not preferred.
        episodes: Int, episodes of one evaluation, at least 1. Defaults to `10`.
        validation_freq: Int, epochs from one evaluation to the next. The first epoch of a `fit` is
            evaluated too. Epochs without an evaluation repeat the last values. Defaults to `1`.
        max_episode_steps: Int or None, environment steps after which an episode is cut. Set it for
            an environment without a time limit: an agent that never ends an episode would never end
            the evaluation. Defaults to `None`.
        exploration: An exploration rule, for evaluation with an epsilon. Not the one that collects
            transitions: each evaluation begins with its `reset`. Defaults to `None`, greedy
            actions.
        seed: Int or None. With an int, each evaluation begins with the same reset. Defaults to
            `None`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range; during an evaluation, if the network's
            output does not fit the action space.

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
        max_episode_steps: int | None = None,
        exploration: Exploration | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.episodes = check_integer("episodes", episodes)
        self.validation_freq = check_integer("validation_freq", validation_freq)
        if max_episode_steps is not None:
            max_episode_steps = check_integer("max_episode_steps", max_episode_steps)
        if exploration is not None:
            check_type("exploration", exploration, Exploration, "an exploration rule or None")
        self.max_episode_steps = max_episode_steps
        self.exploration = exploration
        self.seed = check_seed(seed)
        self._stepper = EnvironmentStepper(env, "EvaluatePolicy")
        self.env = env
        self.episode_returns = np.zeros(0)
        self._last: dict[str, float] | None = None
        self._policy: Any = None
        self._policy_model: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Forgets the values of an earlier `fit`, so that the first epoch is evaluated."""
        self._last = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Evaluates after the first epoch and every `validation_freq` epochs."""
        if self._last is None or (epoch + 1) % self.validation_freq == 0:
            self.evaluate(self.model)
        if logs is not None and self._last is not None:
            logs.update(self._last)

    def evaluate(self, model: keras.Model) -> float:
        """Plays the episodes with a model's actions.

        Args:
            model: A `DQN`, or any Keras model that maps observations to `[B, A]` action values.

        Returns:
            Float, the mean return. `episode_returns` `[episodes]` has the return of each episode.
        """
        policy = self._policy_of(model)
        exploration = self.exploration or Greedy()
        exploration.reset()
        # Gymnasium makes a generator from the seed itself. This one must differ from it.
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(1,)))
        self._stepper.reset(self.seed)
        episodes = Episodes(self._stepper.num_envs, self.episodes, self.max_episode_steps)
        while not episodes.done:
            episodes.add(self._stepper.step_with(policy, exploration, rng))
            if episodes.wait_for_reset:
                self._stepper.reset()
                episodes.start_anew()
        self.episode_returns = np.array(episodes.returns)
        self._last = {
            "val_return": float(self.episode_returns.mean()),
            "val_return_std": float(self.episode_returns.std()),
            "val_length": float(np.mean(episodes.lengths)),
        }
        return self._last["val_return"]

    def _policy_of(self, model: keras.Model) -> Any:
        if self._policy is None or self._policy_model is not model:
            self._policy, self._policy_model = policy_of(model), model
        else:
            self._policy.refresh()
        return self._policy

    def get_state(self) -> dict[str, Any]:
        """Returns the results of the last evaluation, and the state of `exploration`."""
        state = {"episode_returns": self.episode_returns.copy(), "last": dict(self._last or {})}
        if self.exploration is not None:
            state["exploration"] = self.exploration.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
        self.episode_returns = np.array(state["episode_returns"], float)
        self._last = dict(state["last"]) or None
        if self.exploration is not None:
            self.exploration.set_state(state["exploration"])
