"""`LearningCurve`: draws returns, loss, Q-values and exploration into a picture during `fit`."""

import math
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_dqn.arguments import check_number, check_type
from keras_dqn.files import replaced

_PANELS = {
    "return": ("episode_return", "val_return"),
    "loss": ("loss", "val_loss"),
    "mean Q of the actions taken": ("q_value",),
    "exploration": ("epsilon", "temperature"),
}
_NAMES = [name for names in _PANELS.values() for name in names]
_Curves = dict[str, tuple[list[float], list[float]]]  # one run: a name's steps and values


class LearningCurve(keras.callbacks.Callback):
    """Draws all logs so far into a picture at the end of each epoch.

    The picture has four panels: the return (`episode_return` of `CollectTransitions`, `val_return`
    of `EvaluatePolicy`), the loss, the mean Q-value, and epsilon (or the temperature). The
    horizontal axis counts environment steps, or epochs if there is no collector. This callback
    reads the logs, so it must come after those callbacks in the list. Each new picture replaces the
    old file in one step, so a viewer never sees an unfinished picture. Drawing takes a few tenths
    of a second per epoch. A later `fit` with the same object continues the curves. If the picture
    cannot be written (the disk is full), the callback warns once. `LearningCurve.draw` makes one
    picture of several finished runs.

    Args:
        path: String or path of the picture. Its suffix sets the format: `.png` or another one that
            matplotlib can write. A missing directory is created.
        goal: Float or None, return that counts as solved, drawn as a dotted line in the return
            panel. Defaults to `None`, no line.

    Raises:
        ImportError: If matplotlib (the extra `plot`) is not installed.
        ValueError: If matplotlib cannot write files with this suffix.

    Example:
    ```
    curve = LearningCurve("curve.png", goal=475)
    agent.fit(dataset, callbacks=[collect, update, evaluate, curve])
    ```
    """

    def __init__(self, path: str | os.PathLike, *, goal: float | None = None) -> None:
        super().__init__()
        self.path = _picture_path(path)
        self.goal = None if goal is None else check_number("goal", goal)
        self._warned = False
        self._epochs = 0
        self._curves: _Curves = {}

    @staticmethod
    def draw(
        histories: Sequence[keras.callbacks.History | dict[str, list]],
        path: str | os.PathLike,
        *,
        goal: float | None = None,
    ) -> None:
        """Draws several finished runs into one picture, in the same four panels.

        Each curve is the median of the runs, with a band from their first to their third quartile.
        It covers the steps that all runs have in common. At the steps of the run with the fewest
        values, the values of the other runs are linearly interpolated. A log that only some runs
        have is drawn for these runs. A single run is drawn as plain lines. Missing values (NaN) are
        left out.

        Args:
            histories: List of the return values of `fit`, one for each run (for example, for each
                seed), or of their `history` dicts. If a list in a dict is shorter than `env_steps`,
                its first epochs are missing.
            path: String or path of the picture, as in the constructor.
            goal: Float or None, as in the constructor.

        Raises:
            ImportError: If matplotlib (the extra `plot`) is not installed.
            ValueError: If there is no run or nothing to draw, if only some runs have `env_steps`,
                if a list is longer than `env_steps`, or if the runs have no steps in common.

        Example:
        ```
        histories = [train(seed) for seed in range(5)]  # each returns what `fit` returned
        LearningCurve.draw(histories, "curves.png", goal=475)
        ```
        """
        path = _picture_path(path)
        goal = None if goal is None else check_number("goal", goal)
        check_type("histories", histories, (list, tuple), "a list of histories")
        runs = [_history_dict(history) for history in histories]
        counts_steps = {"env_steps" in run for run in runs}
        if len(counts_steps) == 2:
            raise ValueError(
                "Either all or none of `histories` must have `env_steps`. Received: only some have"
            )
        curves = [_curves_of(run) for run in runs]
        if not any(curves):
            raise ValueError(
                f"`histories` must hold runs with some of the logs {_NAMES}. Received: {len(runs)} "
                f"runs with {sorted({name for run in runs for name in run})}"
            )
        _draw_runs(curves, path, goal, True in counts_steps)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the logs of the epoch to the curves and draws them."""
        logs = logs or {}
        self._epochs += 1
        where = float(logs.get("env_steps", self._epochs))
        for name in _NAMES:
            value = float(logs.get(name, math.nan))
            if not math.isnan(value):
                steps, values = self._curves.setdefault(name, ([], []))
                steps.append(where)
                values.append(value)
        try:
            _draw_runs([self._curves], self.path, self.goal, "env_steps" in logs)
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
        """Restores the state that `get_state` returned."""
        self._epochs = state["epochs"]
        self._curves = {
            name: (list(steps), list(values)) for name, (steps, values) in state["curves"].items()
        }


def _picture_path(path: str | os.PathLike) -> pathlib.Path:
    """Returns the absolute path, if matplotlib can write files with its suffix."""
    check_type("path", path, (str, os.PathLike), "a string or path")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`LearningCurve` needs matplotlib: python -m pip install matplotlib"
        ) from error
    kinds = Figure().canvas.get_supported_filetypes()
    if pathlib.Path(path).suffix[1:].lower() not in kinds:
        raise ValueError(
            f"`path` must end in one of {sorted('.' + kind for kind in kinds)}. "
            f"Received: path={path}"
        )
    return pathlib.Path(path).absolute()


def _history_dict(history: Any) -> dict[str, list]:
    history = getattr(history, "history", history)
    check_type("histories", history, dict, "a list of what `fit` returned, or of its dicts")
    return history


def _curves_of(history: dict[str, list]) -> _Curves:
    """Returns the curves of one run; a list shorter than `env_steps` lacks its first epochs."""
    named = {name: history[name] for name in _NAMES if history.get(name)}
    steps = history.get("env_steps") or range(1, 1 + max(map(len, named.values()), default=0))
    curves: _Curves = {}
    for name, values in named.items():
        if len(values) > len(steps):
            raise ValueError(
                "`histories` must have a step for each value. Received: a run with "
                f"{len(steps)} `env_steps`, but {len(values)} values of `{name}`"
            )
        points = zip(steps[-len(values) :], values, strict=True)
        kept = [(float(step), float(value)) for step, value in points if not math.isnan(value)]
        if kept:
            curves[name] = ([step for step, _ in kept], [value for _, value in kept])
    return curves


def _quartiles(name: str, curves: list[tuple[list[float], list[float]]]) -> tuple[Any, Any]:
    """Returns the common steps `[N]` of runs, and the quartiles of their values, `[3, N]`."""
    first = max(steps[0] for steps, _ in curves)
    last = min(steps[-1] for steps, _ in curves)
    shortest, _ = min(curves, key=lambda curve: len(curve[0]))
    common = np.array([step for step in shortest if first <= step <= last])
    if not len(common):
        raise ValueError(
            f"`histories` must be runs that have steps in common. Received: `{name}` of one run "
            f"begins at step {first:g}, and that of another ends at step {last:g}"
        )
    values = [np.interp(common, *curve) for curve in curves]
    return common, np.percentile(values, [25, 50, 75], axis=0)


def _draw_runs(runs: list[_Curves], path: pathlib.Path, goal: float | None, steps: bool) -> None:
    """Writes the picture of one run (lines) or several (medians and bands)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    panels: Any = figure.subplots(2, 2, sharex=True)
    for panel, (title, names) in zip(panels.flat, _PANELS.items(), strict=True):
        panel.set_title(title)
        for name in names:
            _draw_curve(panel, name, [run[name] for run in runs if name in run])
        if title == "return" and goal is not None:
            panel.axhline(goal, color="black", linestyle=":", label=f"goal: {goal:g}")
        if panel.get_lines():
            panel.legend()
    for panel in panels[1]:
        panel.set_xlabel("environment steps" if steps else "epochs")
        panel.xaxis.set_major_formatter("{x:,.0f}")
    if len(runs) > 1:
        figure.suptitle(f"Median of {len(runs)} runs; the band holds the middle half of them")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as unfinished:
        figure.savefig(pathlib.Path(unfinished), format=path.suffix[1:].lower())


def _draw_curve(panel: Any, name: str, curves: list[tuple[list[float], list[float]]]) -> None:
    """Draws one log: a line for one run, a band for several, nothing if no run has it."""
    if len(curves) == 1:
        panel.plot(*curves[0], marker=".", label=name)
    elif curves:
        steps, (low, median, high) = _quartiles(name, curves)
        (line,) = panel.plot(steps, median, marker=".", label=name)
        panel.fill_between(steps, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
