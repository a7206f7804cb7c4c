"""docs/migration.md: its scripts run, and all that it names exists.

A script is the Python block under a line that ends with "Here:"; only its `epochs` is set to 1.
Names are those of the code spans in the columns "Here", and of calls in any other text.
"""

import ast
import inspect
import pathlib
import re
from unittest.mock import MagicMock

import gymnasium as gym
import keras
import numpy as np
import pytest

import keras_dqn
import keras_dqn.integrations.tf_agents

TEXT = (pathlib.Path(__file__).parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCRIPTS = re.findall(r"Here:\n\n```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")


class ShortRun(ast.NodeTransformer):
    def visit_Assign(self, node):
        if [ast.unparse(target) for target in node.targets] == ["epochs"]:
            node.value = ast.Constant(1)
        return node


@pytest.mark.parametrize("script", SCRIPTS, ids=range(len(SCRIPTS)))
def test_the_scripts_run(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = ast.fix_missing_locations(ShortRun().visit(ast.parse(script)))
    namespace = {}
    exec(compile(tree, "docs/migration.md", "exec"), namespace)
    assert isinstance(namespace["agent"], keras_dqn.DQN)


def test_each_library_has_a_script_there_and_here():
    assert TEXT.count("\nThere:\n") == TEXT.count("\nHere:\n") == 3
    assert len(SCRIPTS) == 5


@pytest.fixture(scope="module")
def names():
    """What the page's expressions begin with, and the logs of a short `fit`."""
    env = gym.make("CartPole-v1")
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    agent = keras_dqn.DQN(network)
    agent.compile()
    replay = keras_dqn.ReplayBuffer.from_env(env, capacity=1_000)
    explore = keras_dqn.EpsilonGreedy(0.1)
    collect = keras_dqn.CollectTransitions(env, replay, exploration=explore, warmup_steps=400)
    evaluate = keras_dqn.EvaluatePolicy(gym.make("CartPole-v1"), episodes=1)
    callbacks = [collect, keras_dqn.SoftTargetUpdate(), evaluate]
    fit = agent.fit(replay.dataset(1), steps_per_epoch=1, callbacks=callbacks, verbose=0)
    values = {name: getattr(keras_dqn, name) for name in keras_dqn.__all__}
    values |= {"agent": agent, "network": network, "replay": replay, "collect": collect, "env": env}
    values |= {"keras": keras, "keras_dqn": keras_dqn, "gym": gym, "np": np, "print": print}
    values |= {"dataset": replay.dataset(1), "shape": (4,)}
    return {**values, "logs": fit.history}


def tables():
    """Yields the cells of each row of each table, as a dict by the header."""
    header = None
    for line in BLOCK.sub("", TEXT).splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            header = None
        elif header is None:
            header = cells
        elif not set("".join(cells)) <= {"-"}:
            assert len(cells) == len(header) == 3, line
            yield dict(zip(header, cells, strict=True))


def test_each_row_says_what_is_here():
    rows = list(tables())
    assert len(rows) > 150
    assert all(row["Here"] for row in rows)


SPANS_HERE = sorted({span for row in tables() for span in SPAN.findall(row["Here"])})


@pytest.mark.parametrize("span", SPANS_HERE)
def test_what_is_here_exists(span, names):
    tree = ast.parse(span, mode="eval").body
    if isinstance(tree, ast.Constant):
        assert tree.value in names["logs"]
    check(tree, names)


def test_calls_in_the_text_exist(names):
    text = BLOCK.sub("", TEXT)
    for row in tables():  # what stands in the first column belongs to the other library
        text = text.replace(f"| {next(iter(row.values()))} |", "")
    num_checked = 0
    for span in SPAN.findall(text):
        try:
            tree = ast.parse(span, mode="eval").body
        except SyntaxError:
            continue
        if root_of(tree) in names:
            check(tree, names)
            num_checked += 1
    assert num_checked > len(SPANS_HERE)


def test_what_does_not_exist_is_found(names):
    for span in ("DQN(network, dueling=True)", "ReplayBuffer.from_env(env, size=1)", "agent.learn"):
        with pytest.raises((AssertionError, AttributeError, TypeError)):
            check(ast.parse(span, mode="eval").body, names)


def root_of(tree):
    while isinstance(tree, ast.Attribute | ast.Call):
        tree = tree.value if isinstance(tree, ast.Attribute) else tree.func
    return getattr(tree, "id", None)


def check(tree, names):
    """Resolves all names of an expression, and matches its calls with their signatures."""
    if isinstance(tree, ast.Name):
        return names[tree.id]
    if isinstance(tree, ast.Attribute):
        return getattr(check(tree.value, names), tree.attr)
    if isinstance(tree, ast.Call):
        function = check(tree.func, names)
        for argument in [*tree.args, *(keyword.value for keyword in tree.keywords)]:
            check(argument, names)
        check_call(function, tree)
        return function if inspect.isclass(function) else MagicMock()
    return None


def check_call(function, call):
    if isinstance(function, MagicMock) or function is print:
        return
    signature = inspect.signature(function)
    given = [keyword.arg for keyword in call.keywords]
    signature.bind_partial(*call.args, **dict.fromkeys(given))
    further = {
        gym.make: gym.envs.classic_control.CartPoleEnv,
        keras_dqn.ReplayBuffer.from_env: keras_dqn.ReplayBuffer,
        keras_dqn.PrioritizedReplayBuffer.from_env: keras_dqn.PrioritizedReplayBuffer,
    }
    known = {*signature.parameters}
    if getattr(function, "__self__", None).__class__ is keras_dqn.DQN:
        overridden = getattr(keras.Model, function.__name__, function)
        known |= {*inspect.signature(overridden).parameters}
    if function in further:
        known |= {*inspect.signature(further[function]).parameters}
    assert set(given) <= known, f"{ast.unparse(call)}: {set(given) - known}"
