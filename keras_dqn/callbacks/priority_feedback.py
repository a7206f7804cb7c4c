"""`PriorityFeedback`: gives TD errors to a prioritized buffer whose dataset was transformed."""

from typing import Any

import keras

from keras_dqn.replay.protocols import TakesPriorities
from keras_dqn.trainers.replay_trainer import ReplayTrainer


class PriorityFeedback(keras.callbacks.Callback):
    """Gives the TD errors of `fit` to a prioritized replay buffer, as its priorities.

    `DQN.fit` does this by itself on `replay.dataset(...)`. With a transformed dataset, such as
    `replay.dataset(...).map(...)`, `fit` cannot know the buffer. Then this callback names it.

    Args:
        replay: `PrioritizedReplayBuffer`, or another buffer with the protocol `TakesPriorities`.

    Raises:
        ValueError: If `replay` does not take priorities; when `fit` begins, if the model is not a
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
        """Tells the model which buffer gets the TD errors."""
        if not isinstance(self.model, ReplayTrainer):
            raise ValueError(f"`PriorityFeedback` needs a DQN. Received: model={self.model}")
        self.model.feed_back_to(self.replay.update_priorities)
