"""`SoftTargetUpdate`: updates a target network in the compiled step of any Keras model."""

from functools import partial
from typing import Any

import keras

from keras_dqn.arguments import check_integer, check_type
from keras_dqn.models.target_network_model import TargetNetworkModel
from keras_dqn.soft_update import check_tau, soft_update
from keras_dqn.trainers.step_hooks import Hook, StepHooks, hooks_of


class SoftTargetUpdate(keras.callbacks.Callback):
    """Moves a target network towards the online network after each training step.

    ```
    target <- target + tau * (online - target)      every `update_freq` updates
    ```

    `tau=1.0, update_freq=1_000` is the hard update of the DQN paper. The blend is part of the
    compiled training step, so it is exact at every `steps_per_execution`. Trainable weights are
    blended. Non-trainable weights (the statistics of BatchNormalization) are copied. The states of
    seed generators do not change.

    It works on a `DQN` without `source` and `target`, and on any other Keras model with them:
    actor-critic targets, a mean teacher, BYOL. Several of these callbacks may run in one `fit`.
    After `fit`, nothing of them stays on the model. A `DQN` counts its updates itself, in a saved
    weight. For another model, this object counts them from 0.

    Args:
        tau: Float in [0, 1], the share of the online weights in a blend. Defaults to `0.005`.
        update_freq: Int, updates from one blend to the next, at least 1. Defaults to `1`.
        source: Keras model or layer, the online network. Defaults to the `network` of a `DQN`.
        target: Keras model or layer that follows `source`. Defaults to the `target_network` of a
            `DQN`.

    Raises:
        ValueError: If an argument is outside its range, or only one of `source` and `target` is
            given; when `fit` begins, if neither is given and the model is not a `DQN`.

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
        self.update_freq = check_integer("update_freq", update_freq, None)
        if update_freq < 1:
            raise ValueError(
                f"`update_freq` must be an integer of at least 1. Received: {update_freq=}"
            )
        for name, network in (("source", source), ("target", target)):
            if network is not None:
                check_type(name, network, keras.layers.Layer, "a Keras model or layer")
        if (source is None) != (target is None):
            raise ValueError(
                f"`source` and `target` must be given together. Received: {source=}, {target=}"
            )
        self.tau = tau
        self.source = source
        self.target = target
        self._own_count: Any = None
        self._hook: Hook | None = None
        self._hooks: StepHooks | None = None  # kept between fits, with the compiled function

    def set_model(self, model: keras.Model) -> None:
        """Sets the model, and removes hooks that an interrupted `fit` has left on it."""
        super().set_model(model)
        self._hooks = hooks_of(model)
        self._hooks.begin()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Puts the blend into the compiled step."""
        self._hook = self._make_hook()
        hooks_of(self.model).add(self._hook)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Notes that the next execution must run the blend."""
        hooks_of(self.model).expect_run()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Raises a `RuntimeError` if the execution did not run the blend."""
        hooks_of(self.model).check_ran()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Removes the blend from the compiled step."""
        if self._hook is not None:
            hooks_of(self.model).remove(self._hook)
            self._hook = None

    def get_state(self) -> dict[str, Any]:
        """Returns the number of updates counted so far on a model that is not a `DQN`."""
        return {"update_count": 0 if self._own_count is None else int(self._own_count)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that `get_state` returned."""
        if state["update_count"] or self._own_count is not None:
            self._count().assign(state["update_count"])

    def _make_hook(self) -> Hook:
        model, tau, source, target = self.model, self.tau, self.source, self.target
        owns_target = isinstance(model, TargetNetworkModel)
        if source is None and not owns_target:
            raise ValueError(
                "`source` and `target` must be given for a model that is not a DQN. Received: "
                f"model={model}"
            )
        if source is None:
            model.target_follows = True  # even if the first blend is many updates away

        def blend() -> None:
            if source is None:
                model.update_target(tau)
            else:
                soft_update(source, target, tau)

        key = (id(source), id(target), tau, self.update_freq)
        moved = model.target_network if source is None else target
        if self.update_freq == 1:
            return Hook(blend, key, moved)
        if owns_target:
            due = partial(_blend_when_due, blend, model.update_count, self.update_freq)
            return Hook(due, key, moved)
        return Hook(self._count_and_blend(blend), (*key, id(self._count())), moved)

    def _count(self) -> keras.Variable:
        if self._own_count is None:
            self._own_count = keras.Variable(0, dtype="int64", trainable=False, name="update_count")
        return self._own_count

    def _count_and_blend(self, blend: Any) -> Any:
        count = self._count()

        def run() -> None:
            count.assign_add(1)
            _blend_when_due(blend, count, self.update_freq)

        return run


def _blend_when_due(blend: Any, count: Any, update_freq: int) -> None:
    def due() -> Any:
        blend()
        return keras.ops.zeros(())

    keras.ops.cond(count.value % update_freq == 0, due, lambda: keras.ops.zeros(()))
