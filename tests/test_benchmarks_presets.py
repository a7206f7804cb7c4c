"""The presets of the learning curves: one is the quick start, and all train."""

import functools
import importlib.util
import pathlib
import runpy
import sys

import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn

ROOT = pathlib.Path(__file__).parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where `dataclasses` and the other one look it up
    spec.loader.exec_module(module)
    return module


presets = load("presets")
minatar_parts = load("minatar_parts")

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


class Cells(gym.Env):
    """Images as those of MinAtar; the action that equals the marked column is paid."""

    observation_space = gym.spaces.Box(0, 1, (10, 10, 4), bool)
    action_space = gym.spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.draw(), {}

    def draw(self):
        self.column = int(self.np_random.integers(6))
        image = np.zeros((10, 10, 4), bool)
        image[5, self.column, 1] = True
        return image

    def step(self, action):
        self.steps += 1
        reward = float(action == self.column)
        return self.draw(), reward, self.steps == 20, False, {}


@pytest.fixture(scope="module")
def cells():
    gym.register("Cells-v0", Cells)
    yield "Cells-v0"
    del gym.registry["Cells-v0"]


@pytest.fixture(scope="module")
def history_of_minatar(cells):
    return history_of(cells, 5_800, presets.minatar)


def test_without_a_part_it_is_the_preset_of_minatar(cells, history_of_minatar):
    alone = functools.partial(minatar_parts.minatar_with, None)
    np.testing.assert_equal(history_of(cells, 5_800, alone), history_of_minatar)


# What holds for the run with a part, and for no other run.
CHANGES = {
    "three_steps": lambda run: run.data.n_step == 3,
    "munchausen": lambda run: run.agent.munchausen is not None,
    "dueling": lambda run: isinstance(run.agent.network.layers[-1], keras_dqn.layers.DuelingHead),
    "noisy": lambda run: (
        isinstance(run.agent.network.layers[-1], keras_dqn.layers.NoisyDense)
        and isinstance(run.callbacks[0].exploration, keras_dqn.NoisyGreedy)
    ),
    "prioritized": lambda run: isinstance(
        run.callbacks[0].replay, keras_dqn.PrioritizedReplayBuffer
    ),
    "epsilon_z": lambda run: isinstance(run.callbacks[0].exploration, keras_dqn.EpsilonZGreedy),
    "c51": lambda run: isinstance(run.agent, keras_dqn.CategoricalDQN),
    "hl_gauss": lambda run: isinstance(run.agent, keras_dqn.HLGaussDQN),
    "quantiles": lambda run: isinstance(run.agent, keras_dqn.QuantileDQN),
}


OTHER_SETTINGS = {"three_steps": {"n_step"}, "munchausen": {"double"}, "noisy": {"epsilon"}}


def settings(run):
    """What one can ask a run for, without what is a part itself."""
    collect, soft_update = run.callbacks
    collect.exploration.update(50_000, 0)
    return {
        "optimizer": run.agent.optimizer.get_config() | {"name": None},
        "steps_per_execution": run.agent.steps_per_execution,
        "double": run.agent.double,
        "capacity": collect.replay.capacity,
        "num_envs": collect.env.num_envs,
        "warmup_steps": collect.warmup_steps,
        "env_steps": (collect.max_env_steps, collect.env_steps_per_update),
        "epsilon": getattr(collect.exploration, "value", None),
        "tau": (soft_update.tau, soft_update.update_freq),
        "batch": (run.data.batch_size, run.data.gamma),
        "n_step": run.data.n_step,
        "length": (run.updates, run.epoch_updates, run.max_episode_steps, run.episodes),
        "seeds": (collect.seed, collect.replay.seed),
    }


@pytest.mark.parametrize("part", minatar_parts.PARTS)
def test_a_part_changes_itself_alone(part, cells):
    run = minatar_parts.PRESETS[f"minatar+{part}"](cells, seed=3, env_steps=5_800)
    assert [name for name, holds in CHANGES.items() if holds(run)] == [part]
    ours, base = settings(run), settings(presets.minatar(cells, seed=3, env_steps=5_800))
    assert {key for key in base if ours[key] != base[key]} == OTHER_SETTINGS.get(part, set())


def test_the_preset_with_all_parts_has_those_that_pay(cells):
    run = presets.minatar_all(cells, seed=3, env_steps=5_800)
    assert [name for name, holds in CHANGES.items() if holds(run)] == ["prioritized", "quantiles"]
    assert settings(run) == settings(presets.minatar(cells, seed=3, env_steps=5_800))


def test_the_preset_of_freeway_has_longer_returns_and_repeated_actions(cells):
    run = presets.freeway(cells, seed=3, env_steps=5_800)
    assert [name for name, holds in CHANGES.items() if holds(run)] == ["epsilon_z"]
    assert settings(run) == {
        **settings(presets.minatar(cells, seed=3, env_steps=5_800)),
        "n_step": 5,
    }


@pytest.mark.parametrize("preset", [*minatar_parts.PRESETS, "minatar_all", "freeway"])
def test_a_part_changes_the_run_of_minatar(preset, cells, history_of_minatar):
    function = {**presets.PRESETS, **minatar_parts.PRESETS}[preset]
    history = history_of(cells, 5_800, function)
    assert history["env_steps"] == history_of_minatar["env_steps"]
    assert np.isfinite(history["loss"]).all()
    assert history["loss"] != history_of_minatar["loss"]
