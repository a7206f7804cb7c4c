"""Says whether layers draw noise, and where it comes from. This is separate from `training`.

A target network calls its layers with `training=False`, but its noisy layers must draw. A policy
must not draw, or must use noise that comes from outside the compiled program. Both contexts are
read while a program is traced, and hold for one thread.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras

_draws: ContextVar[bool] = ContextVar("draws", default=False)
_given: ContextVar[Callable | None] = ContextVar("given", default=None)


@contextmanager
def drawing(draws: bool = True) -> Iterator[None]:
    """Makes random layers draw in each call, whatever `training` is, or in none if it is False."""
    token = _draws.set(draws)
    try:
        yield
    finally:
        _draws.reset(token)


def is_drawing() -> bool:
    """Returns whether the code runs inside `drawing`."""
    return _draws.get()


@contextmanager
def noise_given(layers: Sequence[Any], noise: Any) -> Iterator[None]:
    """Makes noisy layers use given noise, one draw for each environment.

    Args:
        layers: Sequence of layers with a `noise_size`.
        noise: `[E, F]` float32: the numbers of the first layer, then those of the second, and so
            on.
    """
    parts, end = {}, 0
    for layer in layers:
        begin, end = end, end + layer.noise_size
        parts[id(layer)] = (begin, end)

    def part_of(layer: Any) -> Any:
        begin, end = parts[id(layer)]
        return noise[:, begin:end]

    token = _given.set(part_of)
    try:
        yield
    finally:
        _given.reset(token)


def given_noise(layer: Any) -> Any:
    """Returns the noise `[E, F]` that `noise_given` has for a layer, or None outside of it."""
    part_of = _given.get()
    return None if part_of is None else part_of(layer)


class RandomLayer(keras.layers.Layer):
    """A layer that draws random numbers, and saves the position of its generator.

    Keras does not save it. A loaded layer then draws what the saved one would draw next.

    Args:
        seed: Int or None. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def save_own_variables(self, store: Any) -> None:
        """Saves the layer's own weights and the position of its generator."""
        super().save_own_variables(store)
        store["seed"] = self.seed_generator.state

    def load_own_variables(self, store: Any) -> None:
        """Loads the layer's own weights and the position of its generator."""
        super().load_own_variables({key: store[key] for key in store.keys() if key != "seed"})
        self.seed_generator.state.assign(store["seed"])

    def get_config(self) -> dict:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "seed": self.seed}
