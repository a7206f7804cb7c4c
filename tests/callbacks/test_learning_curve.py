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
    agent.compile(keras.optimizers.Adam(1e-2), steps_per_execution=4)
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
    model.compile("sgd", "mse")
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


def test_refusals(tmp_path, monkeypatch):
    for path in (tmp_path / "curve", tmp_path / "curve.txt"):
        with pytest.raises(ValueError, match=r"`path` must end in one of .*\.png"):
            keras_dqn.LearningCurve(path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        keras_dqn.LearningCurve(tmp_path / "curve.png")
