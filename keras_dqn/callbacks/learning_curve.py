"""`LearningCurve`: a picture of returns, loss, Q-values and exploration that grows with `fit`."""

import math
import os
import pathlib
import warnings
from typing import Any

import keras

from keras_dqn.arguments import check_type
from keras_dqn.files import replaced

_PANELS = {
    "return": ("episode_return", "val_return"),
    "loss": ("loss", "val_loss"),
    "mean Q of the actions taken": ("q_value",),
    "exploration": ("epsilon", "temperature"),
}


class LearningCurve(keras.callbacks.Callback):
    """Draws what was logged so far into a picture at the end of each epoch.

    Four panels: the return (`episode_return` of `CollectTransitions`, `val_return` of
    `EvaluatePolicy`), the loss, the mean Q-value, and epsilon (or the temperature), over
    environment steps or, without a collector, over epochs. It reads the logs, and so comes after
    those callbacks in the list. The picture is replaced as a whole: whoever has it open never sees
    half of one. Drawing takes some tenths of a second an epoch. A later `fit` with the same object
    goes on with the curves. If the picture cannot be written (a full disk), it warns once.

    Args:
        path: String or path of the picture; the suffix says which kind, `.png` or another one
            that matplotlib writes. Its directory is made if need be.

    Raises:
        ImportError: If matplotlib (the extra `plot`) is not installed.
        ValueError: If the suffix is none that matplotlib writes.

    Example:
    ```
    agent.fit(dataset, callbacks=[collect, update, evaluate, LearningCurve("curve.png")])
    ```
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__()
        check_type("path", path, (str, os.PathLike), "a string or path")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                "`LearningCurve` needs matplotlib: python -m pip install matplotlib"
            ) from error
        self.path = pathlib.Path(path).absolute()
        self._format = self.path.suffix[1:].lower()
        kinds = Figure().canvas.get_supported_filetypes()
        if self._format not in kinds:
            raise ValueError(
                f"`path` must end in one of {sorted('.' + kind for kind in kinds)}. "
                f"Received: path={path}"
            )
        self._warned = False
        self._epochs = 0
        self._curves: dict[str, tuple[list[float], list[float]]] = {}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Takes the epoch's logs and draws."""
        logs = logs or {}
        self._epochs += 1
        where = float(logs.get("env_steps", self._epochs))
        for names in _PANELS.values():
            for name in names:
                value = float(logs.get(name, math.nan))
                if not math.isnan(value):
                    steps, values = self._curves.setdefault(name, ([], []))
                    steps.append(where)
                    values.append(value)
        try:
            self._draw("environment steps" if "env_steps" in logs else "epochs")
        except OSError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"`LearningCurve` cannot write its picture; training goes on without it. "
                    f"Received: path={str(self.path)!r}, {error}",
                    stacklevel=2,
                )

    def get_state(self) -> dict[str, Any]:
        """Returns the curves so far."""
        curves = {name: [list(axis) for axis in curve] for name, curve in self._curves.items()}
        return {"epochs": self._epochs, "curves": curves}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes the state that `get_state` returned."""
        self._epochs = state["epochs"]
        self._curves = {
            name: (list(steps), list(values)) for name, (steps, values) in state["curves"].items()
        }

    def _draw(self, x_label: str) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 6), layout="constrained")
        panels: Any = figure.subplots(2, 2, sharex=True)
        for panel, (title, names) in zip(panels.flat, _PANELS.items(), strict=True):
            panel.set_title(title)
            for name in names:
                if name in self._curves:
                    panel.plot(*self._curves[name], marker=".", label=name)
                    panel.legend()
        for panel in panels[1]:
            panel.set_xlabel(x_label)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(self.path) as unfinished:
            figure.savefig(pathlib.Path(unfinished), format=self._format)
