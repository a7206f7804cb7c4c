"""The house rules: who imports whom, and what nobody touches."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import keras_dqn

PACKAGE = pathlib.Path(keras_dqn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LEVELS = {
    "ops": 0,
    "schedules": 0,
    "soft_update": 0,
    "stateful": 0,
    "spaces": 0,
    "networks": 1,
    "replay": 1,
    "acting": 2,
    "trainers": 2,
    "models": 3,
    "callbacks": 4,
    "integrations": 5,
}


def level_of(dotted):
    return LEVELS[dotted.split(".")[1]]


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ([f"{node.module}.{alias.name}" for alias in node.names])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path):
    if path.parent == PACKAGE and path.name == "__init__.py":
        return
    own = ".".join(["keras_dqn", *path.relative_to(PACKAGE).with_suffix("").parts])
    for imported in imports_of(path):
        assert not imported.startswith(("keras.src", "tf_keras", "tensorflow.keras"))
        if imported.startswith("keras_dqn."):
            assert level_of(imported) <= level_of(own), f"{own} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_and_no_global_things(path):
    source = path.read_text()
    assert "tf.keras" not in source
    assert not re.search(r"np\.random\.(seed|rand|randint|choice|normal|uniform)\(", source)
    assert not re.search(r"\b(keras|tf|ops)(\.\w+)*\._\w", source)
    assert "except: pass" not in source
    assert len(source.splitlines()) <= 300, "is there a natural seam?"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_body_is_over_40_lines(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            assert not body or node.end_lineno - body[0].lineno < 40, node.name


def test_public_names():
    assert sorted(keras_dqn.__all__) == sorted(set(keras_dqn.__all__))
    for name in keras_dqn.__all__:
        assert getattr(keras_dqn, name).__doc__


def test_another_backend_is_refused():
    code = "import keras; keras.config.backend = lambda: 'jax'; import keras_dqn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "needs Keras' TensorFlow backend" in done.stderr
