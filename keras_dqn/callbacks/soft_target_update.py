"""`SoftTargetUpdate`: a target network that follows, inside any Keras model's compiled step."""

from typing import Any

import keras

from keras_dqn.soft_update import check_tau, soft_update
from keras_dqn.trainers.step_hooks import Hook, StepHooks


class SoftTargetUpdate(keras.callbacks.Callback):
    """Moves a target network a step towards the online one after each training step.

    ```
    target <- target + tau * (online - target)      every `update_freq` updates
    ```

    `tau=1.0, update_freq=1_000` is the hard update of the DQN paper. The blend is part of the
    compiled training step and so exact at every `steps_per_execution`. Trainable weights are
    blended; non-trainable ones (the statistics of BatchNormalization) are copied; the states of
    seed generators are left alone.

    Works on a `DQN` as it is and on any Keras model when `source` and `target` are given:
    actor-critic targets, a mean teacher, BYOL. Several of them may run in one `fit`. Nothing of it
    stays on the model after `fit`. On a `DQN` the updates are counted by the model, in a saved
    weight; on another model by this object, from 0.

    Args:
        tau: Float in [0, 1]. Defaults to `0.005`.
        update_freq: Int, updates from one blend to the next, at least 1. Defaults to `1`.
        source: Keras model or layer that is followed. Defaults to the `network` of a `DQN`.
        target: Keras model or layer that follows. Defaults to the `target_network` of a `DQN`.

    Raises:
        ValueError: If an argument is outside its range, or only one of `source` and `target` is
            given; when `fit` begins, if neither is given and the model is no `DQN`.

    Reference:
        Lillicrap et al., 2016, "Continuous control with deep reinforcement learning", Algorithm 1;
        Mnih et al., 2015, for the hard update.
    """

    def __init__(
        self,
        tau: float = 0.005,
        update_freq: int = 1,
        source: keras.layers.Layer | None = None,
        target: keras.layers.Layer | None = None,
    ) -> None:
        super().__init__()
        check_tau(tau)
        if update_freq < 1 or update_freq != int(update_freq):
            raise ValueError(
                f"`update_freq` must be an integer of at least 1. Received: {update_freq=}"
            )
        if (source is None) != (target is None):
            raise ValueError(
                f"`source` and `target` must be given together. Received: {source=}, {target=}"
            )
        self.tau = tau
        self.update_freq = int(update_freq)
        self.source = source
        self.target = target
        self._own_count: Any = None
        self._piece: Hook | None = None
        self._train_function_before: Any = None

    def set_model(self, model: keras.Model) -> None:
        """Takes the model; pieces that an interrupted `fit` has left on it go."""
        super().set_model(model)
        StepHooks.of(model).clear()
        self._train_function_before = model.train_function

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Puts the blend into the compiled step."""
        self._piece = self._make_piece()
        StepHooks.of(self.model).add(self._piece, self._train_function_before)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the blend out again."""
        if self._piece is not None:
            StepHooks.of(self.model).remove(self._piece)
            self._piece = None

    def _make_piece(self) -> Hook:
        model, tau, source, target = self.model, self.tau, self.source, self.target
        if source is not None:

            def blend() -> None:
                soft_update(source, target, tau)

        elif hasattr(model, "update_target"):
            model.target_follows = True  # even if the first blend is many updates away

            def blend() -> None:
                model.update_target(tau)

        else:
            raise ValueError(
                "`source` and `target` must be given for a model that is no DQN. Received: "
                f"model={model}"
            )
        key = (id(source), id(target), tau, self.update_freq)
        if self.update_freq == 1:
            return Hook(blend, key)
        if hasattr(model, "update_count"):
            return Hook(lambda: _blend_when_due(blend, model.update_count, self.update_freq), key)
        return Hook(self._count_and_blend(blend), (*key, id(self._own_count)))

    def _count_and_blend(self, blend: Any) -> Any:
        if self._own_count is None:
            self._own_count = keras.Variable(0, dtype="int64", trainable=False, name="update_count")

        def run() -> None:
            self._own_count.assign_add(1)
            _blend_when_due(blend, self._own_count, self.update_freq)

        return run


def _blend_when_due(blend: Any, count: Any, update_freq: int) -> None:
    def due() -> Any:
        blend()
        return keras.ops.zeros(())

    keras.ops.cond(count.value % update_freq == 0, due, lambda: keras.ops.zeros(()))
