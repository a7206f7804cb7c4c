"""The part of a checkpoint that is a replay buffer: its state, and references to its rows."""

from pathlib import Path
from typing import Any

from keras_dqn.hdf5 import DamagedFileError
from keras_dqn.replay.contents import used_ranges, wrong_arrays
from keras_dqn.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
from keras_dqn.replay.replay_buffer import ReplayBuffer
from keras_dqn.saving.row_segments import RingRows, Segment, files_of, load_rows, save_rows
from keras_dqn.spaces.action_spec import ActionSpec
from keras_dqn.spaces.space_config import space_to_config


class ReplayCheckpoint:
    """Saves and restores one buffer; each checkpoint writes only the new rows.

    Args:
        replay: `ReplayBuffer`.
        directory: Path of the checkpoints.
        index: Int, the number of this buffer in the checkpoint.
    """

    def __init__(self, replay: ReplayBuffer, directory: Path, index: int) -> None:
        self.replay = replay
        self._directory = directory
        self._index = index
        self._segments: list[Segment] = []

    def save(self, number: int) -> dict[str, Any]:
        """Writes the new rows for the checkpoint of this number; returns the rest."""
        state = self.replay.get_state(rows=False)
        rows = RingRows(self.replay.row_arrays(), state["heads"])
        prefix = f"rows-{self._index}-{number}"
        self._segments = save_rows(self._directory, prefix, rows, self._segments)
        return {"made_with": self._arguments(), "state": state, "segments": self._segments}

    def check(self, saved: dict[str, Any]) -> None:
        """Raises a `ValueError` if a saved buffer was made with other arguments."""
        own, made_with = self._arguments(), saved["made_with"]
        for name in {**own, **made_with}:
            if own.get(name) != made_with.get(name):
                raise ValueError(
                    f"The replay buffer must be made as in the checkpoint: its `{name}` differs. "
                    f"Received: {name}={own.get(name)}, in {str(self._directory)!r} "
                    f"{made_with.get(name)}"
                )

    def restore(self, saved: dict[str, Any]) -> None:
        """Fills the buffer.

        Raises:
            DamagedFileError: If a file of rows is missing or damaged.
        """
        state = saved["state"]
        try:
            rows = RingRows(self.replay.row_arrays(), state["heads"])
            load_rows(self._directory, rows, saved["segments"])
            self.replay.set_state(state)
        except (KeyError, TypeError, IndexError, ArithmeticError) as error:
            raise DamagedFileError(f"A replay buffer in it is damaged ({error!r}).") from error
        sizes = ActionSpec(self.replay.action_space).sizes
        used = used_ranges(state["heads"], rows.ring_size)
        if wrong := wrong_arrays(rows.arrays, used, sizes):
            raise DamagedFileError(f"A replay buffer in it is damaged: {wrong}.")
        self._segments = saved["segments"]

    @property
    def files(self) -> set[str]:
        """The names of the files that hold the rows of the last checkpoint."""
        return files_of(self._segments)

    def _arguments(self) -> dict[str, Any]:
        """Returns the arguments that the saved arrays depend on, as JSON holds them."""
        replay = self.replay
        return {
            "class": type(replay).__name__,
            "observation_space": space_to_config(replay.observation_space),
            "action_space": space_to_config(replay.action_space),
            **{name: getattr(replay, name) for name in ("capacity", "num_envs", "frame_stack")},
            "variant": replay.variant if isinstance(replay, PrioritizedReplayBuffer) else None,
        }
