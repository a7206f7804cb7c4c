"""Steps single and vector environments of Gymnasium in the same way, in all autoreset modes.

The first axis of all arrays is `[E]`, the environments; a `gym.Env` is one environment.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from keras_dqn.acting.env_calls import calls_of
from keras_dqn.acting.episode_record import EpisodeRecord
from keras_dqn.acting.exploration import Exploration
from keras_dqn.acting.observations import batch_of, check_all_envs, copy_of, equal, with_rows
from keras_dqn.acting.recorded_returns import recorded_return, recorded_returns
from keras_dqn.spaces.action_mask import check_some_allowed, mask_of
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.env_spaces import Environment, num_envs_of, single_spaces

_STEPPED = np.ones(1, bool)
_STEPPED.flags.writeable = False


class Step(NamedTuple):
    """One step of all environments.

    Attributes:
        observation: `[E, ...]`, observations for which the actions were chosen.
        action: `[E]` (or `[E, D]`) int64, actions as they were passed to `env.step`.
        reward: `[E]` float64.
        terminated: `[E]` bool.
        truncated: `[E]` bool.
        next_observation: `[E, ...]`, the real next ones: the final one where an episode ended.
        stepped: `[E]` bool, False where the environment was reset instead of stepped.
        recorded: None, or `[E]` float64: the returns of the episodes that ended with the step, as
            Gymnasium's `RecordEpisodeStatistics` has recorded them. NaN means not recorded.
    """

    observation: Any
    action: NDArray[np.int64]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    next_observation: Any
    stepped: NDArray[np.bool_]
    recorded: NDArray[np.float64] | None = None


class EnvironmentStepper:
    """Steps an environment or vector environment, and resets it as its autoreset mode requires.

    Args:
        env: `gym.Env` or `gym.vector.VectorEnv`, with a `Discrete` or `MultiDiscrete` action
            space.
        owner: String, the name of this stepper in errors, when other code steps the environment.
            Defaults to `"EnvironmentStepper"`.
        record: `EpisodeRecord` of the environment, which gives the resets their seeds, so that
            `set_state` can repeat the running episodes. Defaults to `None`: seeds are given to
            `reset`, and `set_state` leaves the environment as it is.
    """

    def __init__(
        self,
        env: Environment,
        owner: str = "EnvironmentStepper",
        record: EpisodeRecord | None = None,
    ) -> None:
        self.env: Any = env
        self.owner = owner
        self.record = record
        self.observation_space, self.action_space = single_spaces(env)
        self.action_spec = ActionSpec(self.action_space)
        self.num_envs = num_envs_of(env)
        self._vectorized = isinstance(env, VectorEnv)
        self._mode = _autoreset_mode(env) if self._vectorized else None
        self._own = copy_of if self._vectorized else batch_of
        self._resetting = np.zeros(self.num_envs, bool)
        self._calls = calls_of(env)
        self._num_calls = 0
        self.observation: Any = None

    def reset(self, seed: int | None = None) -> None:
        """Starts new episodes in all environments and sets `observation` to their first one.

        With a `record`, the seed is the record's next one.
        """
        self.observation = None  # if the reset is interrupted
        self._reset_all(seed if self.record is None else self.record.begin())
        self._note_calls()

    def _reset_all(self, seed: Any) -> None:
        observation, _ = self.env.reset(seed=seed)
        self.observation = self._own(observation)
        check_all_envs(self.observation, self.num_envs)
        self._resetting = np.zeros(self.num_envs, bool)

    def step(self, action: NDArray[np.int64]) -> Step:
        """Takes 0-based actions `[E]` and sets `observation` to the start of the next step.

        After an interrupted step (Ctrl-C) `observation` is None, because the state of the
        environment is unknown.

        Raises:
            RuntimeError: If other code has reset or stepped the environment since the last call,
                or a worker process of an `AsyncVectorEnv` has ended. An error of the environment
                itself is raised unchanged.
        """
        self._check_calls()
        try:
            if self.record is not None:
                self.record.add(action)
            step = self._step_all(action) if self._vectorized else self._step_single(action)
        except BaseException as error:
            self.observation = None
            if isinstance(error, (EOFError, ConnectionError)):
                _check_workers(self.env, error)
            raise
        self._note_calls()
        return step

    def _step_all(self, action: NDArray[np.int64]) -> Step:
        before, stepped = self.observation, ~self._resetting
        action = self.action_spec.to_env(action)
        after, reward, terminated, truncated, info = _five(self.env.step(action))
        ended = (terminated | truncated) & stepped
        final = after = self._own(after)
        if self._mode is AutoresetMode.SAME_STEP and ended.any():
            final = with_rows(after, info["final_obs"], ended)
        elif self._mode is AutoresetMode.DISABLED and ended.any():
            after = self._own(self._reset_where(ended))
        elif self._mode is AutoresetMode.NEXT_STEP:
            self._resetting = ended
        self.observation = after
        recorded = recorded_returns(info, ended) if ended.any() else None
        return Step(before, action, reward, terminated, truncated, final, stepped, recorded)

    def _reset_where(self, ended: NDArray[np.bool_]) -> Any:
        seeds = None
        if self.record is not None and self.record.by_episode:
            self.record.begin_where(ended)
            seeds = self.record.seeds_where(ended)
        return self.env.reset(seed=seeds, options={"reset_mask": ended})[0]

    def step_with(self, policy: Any, exploration: Exploration, rng: np.random.Generator) -> Step:
        """Takes the actions that an exploration rule chooses from a policy's action values."""
        if exploration.noisy:
            values = policy.noisy_action_values(self.observation, rng)
        else:
            values = policy.action_values(self.observation)
        self.action_spec.check_values(values, self.num_envs)
        if getattr(policy, "action_mask", None) is not None:  # also policies of users
            check_some_allowed(values != -np.inf, ~self._resetting)
        return self.step(exploration(values, rng))

    def step_at_random(self, rng: np.random.Generator, action_mask: str | None = None) -> Step:
        """Takes uniformly random actions, of those that the mask with this key allows."""
        mask = None
        if action_mask is not None:
            mask = self.action_spec.allowed(mask_of(self.observation, action_mask))
            check_some_allowed(mask, ~self._resetting)
        return self.step(self.action_spec.sample(rng, self.num_envs, mask))

    def get_state(self) -> dict[str, Any]:
        """Returns the last observation, which environments reset themselves next, and the record.

        Without a record, the state of the environment itself is not included.
        """
        state = {"observation": copy_of(self.observation), "resetting": self._resetting.copy()}
        return state if self.record is None else {**state, "record": self.record.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned.

        With a record, the environment is reset and takes the recorded actions again. If its
        observation then differs from the saved one, a warning says so, and `observation` is None.
        """
        self._resetting = np.array(state["resetting"], bool)
        if self.record is None:
            self.observation = copy_of(state["observation"])
        else:
            self.observation = None
            self.record.set_state(state["record"])
            if state["observation"] is not None:
                self._repeat(self.record, state["observation"])
        self._note_calls()

    def _repeat(self, record: EpisodeRecord, saved: Any) -> None:
        """Repeats the running episodes, which must lead to the saved observation."""
        resetting = self._resetting
        try:
            same = self._take_again(record) and equal(self.observation, saved)
            same = same and np.array_equal(self._resetting, resetting)
        except BaseException:
            self.observation = None
            raise
        if not same:
            self.observation = None
            warnings.warn(
                "`env` did not repeat its running episodes: it is not a function of `reset(seed)` "
                f"and the actions. They are cut, and new ones begin. Received: env={self.env}",
                stacklevel=4,
            )

    def _take_again(self, record: EpisodeRecord) -> bool:
        """Takes the recorded actions from the start, and returns whether that was possible."""
        self._reset_all(record.seeds())
        for t, action in enumerate(record.actions.astype(np.int64), start=1):
            if not record.by_episode:
                self._step_all(action)
                continue
            to_env = self.action_spec.to_env(action) if self._vectorized else self._only(action)
            after, _, terminated, truncated, _ = _five(self.env.step(to_env))
            if not self._vectorized:
                if terminated or truncated:
                    return False
            # Before its running episode an environment may end at other times. It only waits.
            elif (again := terminated | truncated | (record.starts == t)).any():
                seeds, options = record.seeds_where(again), {"reset_mask": again}
                after, _ = self.env.reset(seed=seeds, options=options)
            self.observation = self._own(after)
        return True

    def _note_calls(self) -> None:
        self._num_calls = self._calls.count
        self._calls.last = self.owner

    def _check_calls(self) -> None:
        if self._calls.count != self._num_calls:
            raise RuntimeError(
                f"`env` was reset or stepped by {self._calls.last or 'your own code'} after "
                f"the last step of {self.owner}: the next transition would join two episodes. Give "
                "each a separate environment, or start new episodes with `reset()` of the "
                f"collector. Received: env={self.env}"
            )

    def _only(self, action: NDArray[np.int64]) -> Any:
        """Returns the action of the one environment: a Python int, or an array `[D]`."""
        only = action[0] if self.action_spec.shape else int(action[0])
        return self.action_spec.to_env(only)

    def _step_single(self, actions: NDArray[np.int64]) -> Step:
        before = self.observation
        action = self._only(actions)
        after, reward, terminated, truncated, info = _five(self.env.step(action))
        after = self._own(after)
        self.observation = after
        recorded = None
        if terminated or truncated:
            recorded = recorded_return(info)
            seed = None if self.record is None else self.record.begin()
            self.observation = self._own(self.env.reset(seed=seed)[0])
        return Step(
            before,
            np.array([action]),
            np.array([reward], np.float64),
            np.array([terminated], bool),
            np.array([truncated], bool),
            after,
            _STEPPED,
            recorded,
        )


def _five(result: Any) -> tuple:
    if len(result) != 5:
        raise TypeError(
            "`env.step` must return observation, reward, terminated, truncated and info, as it "
            f"does since Gymnasium 0.26. Received: {len(result)} values"
        )
    return result


def _check_workers(env: Any, error: BaseException) -> None:
    """Says in plain words that a worker was killed; Gymnasium says "connection reset by peer"."""
    for process in getattr(env.unwrapped, "processes", ()):
        process.join(timeout=1)
        if process.exitcode:  # 0 after an error that the worker has reported
            raise RuntimeError(
                f"A worker process of `env` has ended with exit code {process.exitcode}, so `env` "
                "cannot be stepped any more: make a new vector environment. The buffer holds all "
                f"transitions before this step. Received: env={env}"
            ) from error


def _autoreset_mode(env: Environment) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    if mode is None:
        warnings.warn(
            f"{env} does not say its autoreset mode in `metadata`, so Gymnasium's default, "
            "AutoresetMode.NEXT_STEP, is used.",
            stacklevel=4,
        )
        return AutoresetMode.NEXT_STEP
    return AutoresetMode(mode)
