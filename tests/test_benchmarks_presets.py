"""The presets of the learning curves: one is the quick start, and all train."""

import importlib.util
import pathlib
import runpy
import sys

import keras
import numpy as np
import pytest

import keras_dqn

ROOT = pathlib.Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("presets", ROOT / "benchmarks" / "presets.py")
presets = importlib.util.module_from_spec(SPEC)
sys.modules["presets"] = presets  # where `dataclasses` looks it up
SPEC.loader.exec_module(presets)

NEEDS = {"LunarLander": "Box2D", "MinAtar": "minatar", "ALE": "ale_py"}


def history_of(env, env_steps, preset=None):
    preset = preset or presets.ENVIRONMENTS[env][0]
    keras.utils.set_random_seed(3)
    run = preset(env, seed=3, env_steps=env_steps)
    evaluate = keras_dqn.EvaluatePolicy(
        run.test_env, episodes=10, max_episode_steps=run.max_episode_steps, seed=1_003
    )
    return run.agent.fit(
        run.data,
        epochs=run.epochs,
        steps_per_epoch=run.epoch_updates,
        callbacks=[*run.callbacks, evaluate],
        verbose=0,
    ).history


def test_the_preset_quick_start_is_the_quick_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "argv", ["cartpole.py", "--seed", "3", "--env-steps", "3100"])
    example = runpy.run_path(str(ROOT / "examples" / "cartpole.py"))["history"].history
    assert len(example["val_return"]) == 2
    np.testing.assert_equal(history_of("CartPole-v1", 3_100, presets.quick_start), example)


# MinAtar's `-v0` is the published one; Gymnasium advises the newer `-v1`.
@pytest.mark.filterwarnings("ignore:.*MinAtar.*out of date:DeprecationWarning")
@pytest.mark.parametrize(
    "env",
    [
        "CartPole-v1",
        "Acrobot-v1",
        "MountainCar-v0",
        "LunarLander-v3",
        "MinAtar/Breakout-v0",
        "ALE/Pong-v5",
    ],
)
def test_a_preset_trains(env):
    for name, module in NEEDS.items():
        if env.startswith(name):
            pytest.importorskip(module)
    env_steps = 5_200 if "/" in env else 1_200  # more than the warm-up
    history = history_of(env, env_steps)
    assert history["env_steps"] == [env_steps]
    assert np.isfinite(history["loss"]).all()
