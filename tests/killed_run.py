"""A program that trains under a `TrainingCheckpoint`, for `test_kills.py` to kill and to repeat.

`python killed_run.py VARIANT DIRECTORY EPOCHS` prints a line when an epoch begins, and at the end a
digest of the whole run.
"""

import hashlib
import json
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
from runs import make_run, train

VARIANTS: dict[str, tuple[dict, dict]] = {
    "single": ({"env": "single", "capacity": 3_000}, {"steps": 800}),
    "all": (
        {"env": "NextStep", "capacity": 3_000, "prioritized": True, "overlap": True, "K": 16},
        {"steps": 800, "save_freq": 160},
    ),
}


class Begins(keras.callbacks.Callback):
    """Prints the begin of each epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        print(f"epoch {epoch} begins", flush=True)


def digest_of(variant: str, directory: Any, epochs: int) -> str:
    """Trains, and returns a digest of the weights, the buffer, the collector and the history."""
    make, options = VARIANTS[variant]
    run = train(make_run(**make), directory, epochs=epochs, callbacks=[Begins()], **options)
    assert run.history.epoch == list(range(epochs))
    return json.dumps({name: _digest(part) for name, part in run.state.items()})


def _digest(state: Any) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return [str(value.dtype), list(value.shape), content]
        return value.item()

    text = json.dumps(state, default=plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    print(digest_of(sys.argv[1], sys.argv[2], int(sys.argv[3])), flush=True)
