"""`HostPolicy`: computes action values in a process that has neither Keras nor TensorFlow."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dqn.acting.exploration import draw_noise
from keras_dqn.acting.litert_content import LiteRTContent
from keras_dqn.acting.litert_program import narrow
from keras_dqn.acting.numpy_program import NumPyProgram
from keras_dqn.acting.observations import leaves_of
from keras_dqn.spaces.action_mask import forbid, forbid_missing, mask_of, without_mask

HostProgram = LiteRTContent | NumPyProgram


class HostPolicy:
    """Acts with weights of its own, by LiteRT or NumPy alone; `Policy.host_policy` makes it.

    The values equal those of the network to 1e-5. A policy can be pickled.

    Args:
        program: Computes the values of observations `[E, ...]`, for any E.
        weights: List of arrays, the weights that the programs have.
        observation: `[E, ...]` (or nested dicts or tuples of arrays), an example of the shapes and
            dtypes that `program` takes.
        noisy_program: The same for `[noise, observation]`, or None for a policy without noise.
            Defaults to `None`.
        noise_size: Int, numbers of one draw of the noise. Defaults to `0`.
        action_mask: String, the key of the action mask in observations, or None. `observation` has
            no mask. Defaults to `None`.
        branch_sizes: Tuple of ints, the actions of each branch if they are not equal, or None.
            Defaults to `None`.

    Attributes:
        backend: `"litert"` or `"numpy"`.
        action_mask: The argument.
    """

    def __init__(
        self,
        program: HostProgram,
        weights: list[NDArray],
        observation: Any,
        noisy_program: HostProgram | None = None,
        noise_size: int = 0,
        action_mask: str | None = None,
        branch_sizes: tuple[int, ...] | None = None,
    ) -> None:
        self.action_mask = action_mask
        self._branch_sizes = branch_sizes
        self.backend = "litert" if isinstance(program, LiteRTContent) else "numpy"
        self._program = program
        self._noisy_program = noisy_program
        self._noise_size = noise_size
        self._weights = weights
        self._leaves = [(leaf.shape[1:], leaf.dtype) for leaf in leaves_of(observation)]

    def action_values(self, observation: Any) -> NDArray[np.float32]:
        """Returns `[E, A]` float32 for observations `[E, ...]` (or a dict or tuple of arrays).

        The value is -inf where the action mask is 0.

        Raises:
            ImportError: If the backend is LiteRT, and it is not installed in this process.
            ValueError: If the observations have other shapes or dtypes than those of the network.
        """
        return self._masked(self._program(self._arrays_of(observation)), observation)

    def noisy_action_values(
        self, observation: Any, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Returns `[E, A]` float32, with new noise in all `NoisyDense` layers.

        The draws are those of `Policy.noisy_action_values`.

        Args:
            observation: `[E, ...]` (or a dict or tuple of arrays).
            rng: The generator of the noise. Each environment gets a draw of its own.

        Raises:
            ImportError: If the backend is LiteRT, and it is not installed in this process.
            ValueError: If the policy was made without noise, or the observations do not fit.
        """
        if self._noisy_program is None:
            raise ValueError("`noisy` of `Policy.host_policy` must be True. Received: noisy=False")
        leaves = self._arrays_of(observation)
        noise = draw_noise(len(leaves[0]), self._noise_size, rng)
        return self._masked(self._noisy_program([noise, *leaves]), observation)

    def _masked(self, values: NDArray[np.float32], observation: Any) -> NDArray[np.float32]:
        values = forbid_missing(values, self._branch_sizes)
        if self.action_mask is None:
            return values
        return forbid(values, mask_of(observation, self.action_mask))

    def get_weights(self) -> list[NDArray]:
        """Returns the weights, in the order of the network's `variables`."""
        return self._weights

    def set_weights(self, weights: list[NDArray]) -> None:
        """Uses these weights for the next calls.

        Args:
            weights: List of arrays, as `Policy.get_weights` returns them. They are not copied, so
                they must stay as they are. They may be read-only.

        Raises:
            ValueError: If their shapes differ from those of the network's `variables`.
        """
        shapes = [weight.shape for weight in self._weights]
        received = [np.shape(weight) for weight in weights]
        if received != shapes:
            raise ValueError(f"`weights` must have the shapes {shapes}. Received: {received}")
        pairs = zip(weights, self._weights, strict=True)
        self._weights = [np.asarray(weight, own.dtype) for weight, own in pairs]
        self._program.set_weights(self._weights)
        if self._noisy_program is not None:
            self._noisy_program.set_weights(self._weights)

    def _arrays_of(self, observation: Any) -> list[NDArray]:
        """Returns the arrays of observations in the dtypes of the programs."""
        observation = without_mask(observation, self.action_mask)
        arrays = [np.asarray(leaf) for leaf in leaves_of(observation)]
        if len(arrays) != len(self._leaves):
            raise ValueError(self._misfit(arrays))
        for i, (shape, dtype) in enumerate(self._leaves):
            if arrays[i].dtype != dtype:
                arrays[i] = narrow(arrays[i])
            fits = arrays[i].ndim > 0 and arrays[i].shape[1:] == shape
            if not fits or not np.can_cast(arrays[i].dtype, dtype):
                raise ValueError(self._misfit(arrays))
            arrays[i] = arrays[i].astype(dtype, copy=False)
        return arrays

    def _misfit(self, arrays: list[NDArray]) -> str:
        expected = [f"{dtype} {('E', *shape)}" for shape, dtype in self._leaves]
        received = [f"{array.dtype} {array.shape}" for array in arrays]
        return f"`observation` must hold the arrays {expected}. Received: {received}"
