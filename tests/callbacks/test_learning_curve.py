import sys

import keras
import pytest
from conftest import shake
from envs import ChainEnv
from matplotlib.figure import Figure

import keras_dqn

# The four panels and what each may show, in order.
PANELS = [{"episode_return", "val_return"}, {"loss"}, {"q_value"}, {"epsilon"}]


@pytest.fixture
def figures(monkeypatch):
    """Collects the figures that are saved, which are drawn as ever."""
    saved = []
    savefig = Figure.savefig

    def keep(self, *args, **kwargs):
        saved.append(self)
        return savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def curves_of(figure):
    """Returns a dict {label: (x, y)} for each of the panels."""
    return [
        {line.get_label(): line.get_data() for line in panel.get_lines()} for panel in figure.axes
    ]


def callbacks_for(env, curve, **evaluate):
    replay = keras_dqn.ReplayBuffer.from_env(env, 1_000, seed=0)
    collect = keras_dqn.CollectTransitions(
        env,
        replay,
        exploration=keras_dqn.EpsilonGreedy(keras_dqn.LinearSchedule(1.0, 0.1, 100)),
        warmup_steps=50,
        seed=0,
    )
    return replay, [
        collect,
        keras_dqn.SoftTargetUpdate(0.1),
        keras_dqn.EvaluatePolicy(ChainEnv(), episodes=2, **evaluate),
        curve,
    ]


def test_the_picture_shows_what_history_holds(tmp_path, figures, make_network):
    agent = keras_dqn.DQN(make_network(inputs=4))
    agent.compile(keras.optimizers.Adam(1e-2), steps_per_execution=4, jit_compile=False)
    shake(agent.target_network)
    path = tmp_path / "new" / "curve.png"
    replay, callbacks = callbacks_for(ChainEnv(), keras_dqn.LearningCurve(path), validation_freq=2)
    fit = {"epochs": 4, "steps_per_epoch": 8, "verbose": 0, "callbacks": callbacks}
    history = agent.fit(replay.dataset(8), **fit).history
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in path.parent.iterdir()] == ["curve.png"]
    panels = curves_of(figures[-1])
    assert [set(panel) for panel in panels] == PANELS
    x, y = panels[0]["val_return"]  # evaluated every second epoch, repeated between
    assert (list(x), list(y)) == (history["env_steps"], history["val_return"])
    for panel in panels:
        for name in panel.keys() - {"val_return"}:
            x, y = panel[name]
            assert list(x) == history["env_steps"], name
            assert list(y) == pytest.approx(history[name]), name
    assert figures[-1].axes[2].get_xlabel() == "environment steps"
    # A later fit goes on with the curves.
    more = agent.fit(replay.dataset(8), **{**fit, "epochs": 1}).history
    x, y = curves_of(figures[-1])[1]["loss"]
    assert list(x) == history["env_steps"] + more["env_steps"]
    assert list(y) == pytest.approx(history["loss"] + more["loss"])


def test_on_any_keras_model_it_counts_epochs(tmp_path, figures):
    import numpy as np

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    curve = keras_dqn.LearningCurve(tmp_path / "curve.svg")
    x, y = np.ones((4, 2)), np.ones((4, 1))
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[curve]).history
    (_, loss, _, _) = curves_of(figures[-1])
    assert list(loss["loss"][0]) == [1, 2, 3]
    assert list(loss["loss"][1]) == pytest.approx(history["loss"])
    assert figures[-1].axes[3].get_xlabel() == "epochs"
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_temperature_and_validation_loss_are_drawn(tmp_path, figures):
    curve = keras_dqn.LearningCurve(tmp_path / "curve.PNG")
    curve.on_epoch_end(0, {"loss": 2.0, "val_loss": 3.0, "temperature": 0.5, "env_steps": 7})
    _, loss, _, exploration = curves_of(figures[-1])
    assert (loss["val_loss"][0].tolist(), loss["val_loss"][1].tolist()) == ([7.0], [3.0])
    assert exploration["temperature"][1].tolist() == [0.5]
    assert (tmp_path / "curve.PNG").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    curve = keras_dqn.LearningCurve(path)
    curve.on_epoch_end(0, {"loss": 1.0})
    before = path.read_bytes()

    def fail(self, part, **kwargs):
        part.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.warns(UserWarning, match=r"cannot write its picture; .* no space left"):
        curve.on_epoch_end(1, {"loss": 0.5})
    curve.on_epoch_end(2, {"loss": 0.4})  # said once; another warning would be an error
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    curve.on_epoch_end(3, {"loss": 0.3})
    assert path.read_bytes() != before


def test_the_goal_is_a_dotted_line_in_the_return_panel_alone(tmp_path, figures):
    curve = keras_dqn.LearningCurve(tmp_path / "curve.png", goal=475)
    curve.on_epoch_end(0, {"episode_return": 20.0, "loss": 1.0})
    returns, *others = figures[-1].axes
    (line,) = [line for line in returns.get_lines() if line.get_label() == "goal: 475"]
    assert list(line.get_ydata()) == [475.0, 475.0]
    assert line.get_linestyle() == ":"
    assert "goal: 475" in [text.get_text() for text in returns.get_legend().get_texts()]
    assert [len(panel.get_lines()) for panel in others] == [1, 0, 0]
    keras_dqn.LearningCurve(tmp_path / "curve.png").on_epoch_end(0, {"episode_return": 20.0})
    assert len(figures[-1].axes[0].get_lines()) == 1


def band_of(panel):
    """Returns {step: (low, high)} of the one band in a panel."""
    (band,) = panel.collections
    points = band.get_paths()[0].vertices
    steps = sorted(set(points[:, 0]))
    ends = {step: points[points[:, 0] == step, 1] for step in steps}
    return {step: (values.min(), values.max()) for step, values in ends.items()}


def test_several_runs_are_a_median_and_a_band(tmp_path, figures):
    # Quartiles of (0, 10, 20, 30, 100): 10, 20, 30. Those of ten times as much: 100, 200, 300.
    runs = [
        {"env_steps": [8, 16], "val_return": [value, 10 * value], "epsilon": [1.0, 0.5]}
        for value in (100.0, 0.0, 20.0, 30.0, 10.0)
    ]
    path = tmp_path / "new" / "runs.png"
    assert keras_dqn.LearningCurve.draw(runs, path, goal=475.5) is None
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    returns, loss, q_value, exploration = curves_of(figure)
    x, y = returns["val_return"]
    assert (list(x), list(y)) == ([8, 16], [20, 200])
    assert band_of(figure.axes[0]) == {8: (10, 30), 16: (100, 300)}
    assert list(returns["goal: 475.5"][1]) == [475.5, 475.5]
    assert (loss, q_value) == ({}, {})
    assert list(exploration["epsilon"][1]) == [1.0, 0.5]
    assert figure.axes[2].get_xlabel() == "environment steps"
    assert "5 runs" in figure.get_suptitle()


def test_one_run_is_drawn_as_the_callback_draws_it(tmp_path, figures):
    logs = {"env_steps": [8.0, 16.0], "loss": [2.0, 1.0], "q_value": [0.5, 0.75]}
    curve = keras_dqn.LearningCurve(tmp_path / "curve.png", goal=475)
    for epoch in range(2):
        curve.on_epoch_end(epoch, {name: values[epoch] for name, values in logs.items()})
    history = keras.callbacks.History()
    history.history = logs
    keras_dqn.LearningCurve.draw([history], tmp_path / "run.png", goal=475)
    drawn, grown = figures[-1], figures[-2]
    for panel, other in zip(curves_of(drawn), curves_of(grown), strict=True):
        assert {name: [list(axis) for axis in line] for name, line in panel.items()} == {
            name: [list(axis) for axis in line] for name, line in other.items()
        }
    assert not any(panel.collections for panel in drawn.axes)
    assert (tmp_path / "run.png").read_bytes() == (tmp_path / "curve.png").read_bytes()


def test_runs_of_different_lengths_share_the_steps_of_the_shortest(tmp_path, figures):
    runs = [
        {"env_steps": [10, 20, 30, 40], "loss": [1.0, 2.0, 3.0, 4.0]},
        # Logged elsewhere: at 15 and 25 the first run has 1.5 and 2.5; 45 is past its end.
        {"env_steps": [15, 25, 45], "loss": [3.5, 4.5, 9.0]},
    ]
    keras_dqn.LearningCurve.draw(runs, tmp_path / "runs.png")
    x, y = curves_of(figures[-1])[1]["loss"]
    assert (list(x), list(y)) == ([15, 25], [2.5, 3.5])
    # Quartiles of two values lie a quarter of their distance inside.
    assert band_of(figures[-1].axes[1]) == {15: (2.0, 3.0), 25: (3.0, 4.0)}


def test_missing_names_epochs_and_values(tmp_path, figures):
    nan = float("nan")
    runs = [
        {"loss": [1.0, nan, 3.0], "q_value": [5.0, 6.0, 7.0]},  # NaN: not evaluated, say
        {"loss": [3.0, 4.0, 5.0], "episode_return": [20.0, 30.0]},  # none ended in epoch 1
    ]
    keras_dqn.LearningCurve.draw(runs, tmp_path / "runs.png")
    returns, loss, q_value, _ = curves_of(figures[-1])
    assert [list(axis) for axis in returns["episode_return"]] == [[2, 3], [20, 30]]
    assert [list(axis) for axis in loss["loss"]] == [[1, 3], [2, 4]]
    assert [list(axis) for axis in q_value["q_value"]] == [[1, 2, 3], [5, 6, 7]]
    assert [len(panel.collections) for panel in figures[-1].axes] == [0, 1, 0, 0]
    assert figures[-1].axes[2].get_xlabel() == "epochs"


def test_what_cannot_be_drawn_is_refused(tmp_path):
    draw, path = keras_dqn.LearningCurve.draw, tmp_path / "runs.png"
    run = {"env_steps": [8, 16], "loss": [2.0, 1.0]}
    for histories in ([], [{}], [{"accuracy": [1.0]}], [{"loss": [float("nan")]}]):
        with pytest.raises(ValueError, match="`histories` must hold runs with some of the logs"):
            draw(histories, path)
    with pytest.raises(ValueError, match="all or none of `histories` must have `env_steps`"):
        draw([run, {"loss": [1.0]}], path)
    with pytest.raises(
        ValueError, match=r"`histories` must have a step .* 2 .* 3 values of `loss`"
    ):
        draw([{**run, "loss": [1.0, 2.0, 3.0]}], path)
    with pytest.raises(ValueError, match=r"must be runs that have steps in common.*`loss`.*24"):
        draw([run, {**run, "env_steps": [24, 32]}], path)
    for histories in (run, [1.0], keras.callbacks.History()):
        with pytest.raises(TypeError, match="`histories` must be a list of"):
            draw(histories, path)
    with pytest.raises(ValueError, match=r"`path` must end in one of"):
        draw([run], tmp_path / "runs.txt")
    for goal in ("475", True):
        with pytest.raises(TypeError, match="`goal` must be a number"):
            draw([run], path, goal=goal)
        with pytest.raises(TypeError, match="`goal` must be a number"):
            keras_dqn.LearningCurve(path, goal=goal)
    assert not path.exists()


def test_refusals(tmp_path, monkeypatch):
    for path in (tmp_path / "curve", tmp_path / "curve.txt"):
        with pytest.raises(ValueError, match=r"`path` must end in one of .*\.png"):
            keras_dqn.LearningCurve(path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        keras_dqn.LearningCurve(tmp_path / "curve.png")
