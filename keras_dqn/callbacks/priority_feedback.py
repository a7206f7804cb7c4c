"""`PriorityFeedback`: TD errors back to a prioritized buffer whose dataset was transformed."""

from typing import Any

import keras

from keras_dqn.replay.protocols import TakesPriorities
from keras_dqn.trainers.replay_trainer import ReplayTrainer


class PriorityFeedback(keras.callbacks.Callback):
    """Hands the TD errors of `fit` to a prioritized replay buffer, as its priorities.

    `DQN.fit` does it by itself on `replay.dataset(...)`. A transformed dataset, such as
    `replay.dataset(...).map(...)`, no longer tells which buffer it is drawn from: this callback
    does.

    Args:
        replay: `PrioritizedReplayBuffer`, or another buffer that `TakesPriorities`.

    Raises:
        ValueError: If `replay` takes no priorities; when `fit` begins, if the model is no
            `DQN`.

    Reference:
        Schaul et al., 2016, "Prioritized Experience Replay", Algorithm 1, line 12.
    """

    def __init__(self, replay: Any) -> None:
        super().__init__()
        if not isinstance(replay, TakesPriorities):
            raise ValueError(
                f"`replay` must be a PrioritizedReplayBuffer. Received: replay={replay}"
            )
        self.replay = replay

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Tells the model where TD errors go."""
        if not isinstance(self.model, ReplayTrainer):
            raise ValueError(f"`PriorityFeedback` needs a DQN. Received: model={self.model}")
        self.model.feed_back_to(self.replay.update_priorities)
