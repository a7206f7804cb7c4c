"""Prioritized experience replay: transitions with larger TD errors are drawn more often."""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from keras_dqn.arguments import check_number
from keras_dqn.replay.blocks import Block
from keras_dqn.replay.priorities import VARIANTS
from keras_dqn.replay.prioritized_sampler import PrioritizedSampler, check_beta
from keras_dqn.replay.replay_buffer import ReplayBuffer

_MAX_BATCHES_WITHOUT_FEEDBACK = 100


class PrioritizedReplayBuffer(ReplayBuffer):
    """Draws a transition with a probability that grows with its last TD error.

    ```
    P(i)   = v(i) / sum_j v(j)
    v(i)   = p(i)**alpha, p(i) = |td_error(i)| + epsilon       proportional
    v(i)   = (1 / rank(i))**alpha, rank 1 the largest p        rank-based
    w(i)   = (N * P(i))**-beta / max_batch (N * P)**-beta
    ```

    A new transition gets the largest priority so far (1 at first). Each batch is drawn with
    replacement from B equal strata of the sum of all v. The weights are divided by the largest
    weight of their batch. `fit` on its `dataset` feeds the TD errors back by itself after each
    execution. With `steps_per_execution=1` the priorities are exact; with K, all K updates use the
    priorities from the start of the execution. In your own loop, call `update_priorities`.

    `sample` also gives each transition a `key`, `[B]` int64, for `update_priorities`. The weights
    are the importance weights. Each batch of a stack has its own strata.

    Ranks are exact up to 10,000 transitions. Above that, all priorities are sorted again when a
    twentieth of them has changed. Until then, a changed priority takes the rank that it would have
    had in the last sort.

    Args:
        capacity: Int, rows over all environments, as in `ReplayBuffer`.
        observation_space: As in `ReplayBuffer`.
        action_space: As in `ReplayBuffer`.
        alpha: Float, at least 0; 0 draws uniformly. Defaults to `0.6`.
        beta: Float, at least 0, or a callable of the number of updates fed back so far; 1 corrects
            the whole bias. Defaults to `0.4`.
        epsilon: Float above 0, added to each |TD error|. Defaults to `1e-6`.
        variant: `"proportional"` or `"rank"`. Defaults to `"proportional"`.
        **kwargs: Further arguments of `ReplayBuffer`.

    Raises:
        ValueError: If an argument is outside its range.

    Reference:
        Schaul et al., 2016, "Prioritized Experience Replay", equation 1, section 3.4 and
        Algorithm 1.
    """

    def __init__(
        self,
        capacity: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        alpha: float = 0.6,
        beta: float | Callable[[int], float] = 0.4,
        epsilon: float = 1e-6,
        variant: str = "proportional",
        **kwargs: Any,
    ) -> None:
        check_number("alpha", alpha, 0.0)
        if not callable(beta):
            check_beta(beta)
        check_number("epsilon", epsilon, 0.0, above=True)
        if not isinstance(variant, str) or variant not in VARIANTS:
            raise ValueError(f"`variant` must be one of {list(VARIANTS)}. Received: {variant=}")
        super().__init__(capacity, observation_space, action_space, **kwargs)
        self.alpha = alpha
        self.beta = beta
        self.epsilon = epsilon
        self.variant = variant
        priorities = VARIANTS[variant](self._rings.num_slots, alpha)
        self._sampler: PrioritizedSampler = PrioritizedSampler(
            self._rings, self._rng, priorities, beta
        )
        self._batches_without_feedback = 0
        self._warned = False

    @property
    def updates(self) -> int:
        """The number of updates fed back so far, the argument of a `beta` function."""
        return self._sampler.updates

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays, including those of the priorities."""
        return super().nbytes + self._sampler.priorities.nbytes

    # Feedback

    def update_priorities(self, keys: Any, td_error: Any) -> None:
        """Sets priorities to `|td_error| + epsilon`.

        Args:
            keys: `[B]` integer, or `[K, B]` for K batches: the `key` of drawn transitions. A key
                that is no longer stored is ignored. If a key occurs twice, its last one counts.
            td_error: `[B]` or `[K, B]` float, finite, signed or absolute.

        Raises:
            ValueError: If a shape, a dtype or a number does not fit. Then no priority changes.
        """
        keys, td_error = np.asarray(keys), np.asarray(td_error)
        numbers = keys.dtype.kind in "iu" and td_error.dtype.kind in "fiu"
        if keys.shape != td_error.shape or not numbers:
            raise ValueError(
                "`keys` must be integers, and `td_error` must have their shape. Received: keys of "
                f"{keys.dtype} {keys.shape}, td_error of shape {td_error.shape}, {td_error.dtype}"
            )
        td_error = td_error.astype(np.float64)
        if not np.isfinite(td_error).all():
            raise ValueError(f"`td_error` must be finite. Received: td_error={td_error.tolist()}")
        row, env = np.divmod(keys.ravel().astype(np.int64), self.num_envs)
        self._set_priorities(env, row, td_error.ravel())
        self._sampler.updates += len(keys) if keys.ndim > 1 else 1
        self._batches_without_feedback = 0

    def expect_feedback(self, num_batches: int) -> None:
        """Counts batches drawn for training; warns once if 100 were drawn without feedback."""
        if self._batches_without_feedback >= _MAX_BATCHES_WITHOUT_FEEDBACK and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._batches_without_feedback} batches were drawn from a prioritized buffer "
                "and no TD error came back: its priorities do not change. `DQN.fit` on "
                "`replay.dataset(...)` feeds them back by itself; in your own loop, call "
                "`replay.update_priorities(keys, td_error)`.",
                stacklevel=2,
            )
        self._batches_without_feedback += num_batches

    def _take_ratings(self, block: Block, first_env: int, follows: NDArray[np.bool_]) -> None:
        if block.rated is not None:
            env, rows_before_head, td_error = block.rated
            # Rows before the block are others if the buffer has cut the episode or has lost some.
            known = follows[env] | (rows_before_head <= block.counts[env])
            env, rows_before_head = env[known] + first_env, rows_before_head[known]
            row = self._rings.heads()[env] - rows_before_head
            self._set_priorities(env, row, td_error[known].astype(np.float64))

    def _set_priorities(
        self, env: NDArray[np.int64], row: NDArray[np.int64], td_error: NDArray[np.float64]
    ) -> None:
        """Sets the priorities of those of the rows `[B]` that are still stored."""
        self._sampler.take_new_rows()
        stored = self._rings.holds_rows(env, row)
        slots = self._rings.slots(env[stored], row[stored])
        self._sampler.priorities.set(slots, np.abs(td_error[stored]) + self.epsilon)

    def _columns(self, env: NDArray[np.int64], row: NDArray[np.int64]) -> dict[str, NDArray]:
        return {"key": row * self.num_envs + env}

    # On disk

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments except the spaces; None for a `beta` function."""
        own = {name: getattr(self, name) for name in ("alpha", "epsilon", "variant")}
        return {**super().get_config(), **own, "beta": None if callable(self.beta) else self.beta}

    def counters(self) -> dict[str, Any]:
        """Returns the part of the state that JSON can hold."""
        self._sampler.take_new_rows()
        own = {
            "updates": self.updates,
            "largest_priority": self._sampler.priorities.largest,
            "seen_heads": list(self._rings.heads_list),
        }
        return {**super().counters(), **own}

    def arrays(self) -> dict[str, NDArray]:
        """Returns the arrays of the state, not copies, with one entry per slot."""
        self._sampler.take_new_rows()
        return {**super().arrays(), **self._sampler.priorities.arrays()}

    def restored(self, counters: dict[str, Any]) -> None:
        """Takes counters and computes the rest of the state, after `arrays` were changed."""
        super().restored(counters)
        self._sampler.updates = counters["updates"]
        self._sampler.restored(counters["largest_priority"], counters["seen_heads"])

    def get_state(self, rows: bool = True) -> dict[str, Any]:
        """Returns copies of contents, priorities, counters and the generator's state.

        The draws that follow are the same with and without this call.

        Args:
            rows: Bool, whether the state has the key `"rows"`, a copy of `row_arrays()`. Defaults
                to `True`.
        """
        own = {"batches_without_feedback": self._batches_without_feedback}
        return {**super().get_state(rows), **self._sampler.get_state(), **own}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes such a state; the draws that follow are those of the buffer that gave it.

        Args:
            state: Dict that `get_state` returned. Without `"rows"`, the caller must have filled
                `row_arrays()` before.

        Raises:
            ValueError: If it is of another class, size or space, or damaged. Then nothing changes.
        """
        super().set_state(state)
        self._sampler.set_state(state)
        self._batches_without_feedback = state["batches_without_feedback"]
