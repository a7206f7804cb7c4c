"""The house rules: who imports whom, how long things are, and what nobody touches."""

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
    "arguments": -1,
    "backend": -1,
    "files": -1,
    "hdf5": 0,
    "stateful": -1,
    "ops": 0,
    "schedules": 0,
    "soft_update": 0,
    "spaces": 0,
    "layers": 0,
    "losses": 1,
    "networks": 1,
    "replay": 1,
    "acting": 2,
    "saving": 2,
    "trainers": 2,
    "models": 3,
    "callbacks": 4,
    "integrations": 5,
}
# How K steps run in one program, how weights are read and how batches arrive: all that another
# Keras backend would have its own of. `models/dqn.py` has the tape.
USES_TENSORFLOW = {
    "acting/compiled_program.py",
    "acting/exact_values.py",
    "acting/export.py",
    "acting/litert_converter.py",
    "acting/numpy_tracing.py",
    "integrations/tf_agents.py",
    "integrations/trajectories.py",
    "models/dqn.py",
    "replay/replay_dataset.py",
    "backend.py",
    "trainers/execution.py",
    "trainers/fit_data.py",
    "trainers/one_batch.py",
    "trainers/replay_trainer.py",
    "trainers/replicas.py",
    "trainers/stacks.py",
    "trainers/step_hooks.py",
    "trainers/xla.py",
}
# A worker that collects needs these and no Keras.
HOST_ONLY = [
    "acting/collector.py",
    "acting/env_calls.py",
    "acting/environment_stepper.py",
    "acting/episode_record.py",
    "acting/episode_statistics.py",
    "acting/episodes.py",
    "acting/exploration.py",
    "acting/host_policy.py",
    "acting/litert_content.py",
    "acting/litert_program.py",
    "acting/native_log.py",
    "acting/numpy_program.py",
    "acting/observations.py",
    "acting/recorded_returns.py",
    "acting/stateful_wrappers.py",
    "arguments.py",
    "files.py",
    "hdf5.py",
    "schedules.py",
    "stateful.py",
    *(f"{path.parent.name}/{path.name}" for path in sorted((PACKAGE / "spaces").glob("*.py"))),
    *(f"{path.parent.name}/{path.name}" for path in sorted((PACKAGE / "saving").glob("*.py"))),
    *(
        f"replay/{path.name}"
        for path in sorted((PACKAGE / "replay").glob("*.py"))
        if path.name != "replay_dataset.py"
    ),
]
BY_NAME = {"argvalues": MODULES, "ids": lambda path: str(path.relative_to(PACKAGE))}


def name_of(path):
    return ".".join(["keras_dqn", *path.relative_to(PACKAGE).with_suffix("").parts])


def imports_of(path, at_the_top=False):
    """Yields what a module imports; at its top alone, if so wanted, and not for types alone."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_the_top else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ([f"{node.module}.{alias.name}" for alias in node.names])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def modules_of(path, **kwargs):
    """Returns the names of the package's modules that a module imports."""
    names = {name_of(module) for module in MODULES}
    found = set()
    for imported in imports_of(path, **kwargs):
        parent = imported.rpartition(".")[0]
        found |= {imported, parent, f"{imported}.__init__"} & names
    return found


@pytest.mark.parametrize("path", **BY_NAME)
def test_imports_go_downward(path):
    if path.parent == PACKAGE and path.name == "__init__.py":
        return
    own = name_of(path)
    for imported in imports_of(path):
        assert not imported.startswith(("keras.src", "tf_keras", "tensorflow.keras"))
        if imported.startswith("keras_dqn."):
            levels = [LEVELS[name.split(".")[1]] for name in (imported, own)]
            beside = imported.split(".")[1] == own.split(".")[1]
            assert levels[0] < levels[1] or beside, f"{own} imports {imported}"


def test_no_import_cycles():
    graph = {name_of(path): modules_of(path, at_the_top=True) for path in MODULES}
    assert sum(map(len, graph.values())) > 100
    while graph:
        ground = [name for name, imported in graph.items() if not imported & graph.keys()]
        assert ground, f"these import each other in a circle: {sorted(graph)}"
        for name in ground:
            del graph[name]


def test_what_is_learned_is_written_in_keras_ops():
    users = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(imported.split(".")[0] == "tensorflow" for imported in imports_of(path))
    }
    assert users == USES_TENSORFLOW


def test_models_use_tensorflow_for_the_tape_alone():
    source = (PACKAGE / "models" / "dqn.py").read_text()
    assert re.findall(r"\btf\.\w+", source) == ["tf.GradientTape"]


@pytest.mark.parametrize("name", HOST_ONLY)
def test_the_host_side_imports_no_keras(name):
    packages = {imported.split(".")[0] for imported in imports_of(PACKAGE / name, at_the_top=True)}
    assert not packages & {"keras", "tensorflow"}
    assert {
        str(PACKAGE.joinpath(*module.split(".")[1:]).relative_to(PACKAGE)) + ".py"
        for module in modules_of(PACKAGE / name, at_the_top=True)
    } <= set(HOST_ONLY)


@pytest.mark.parametrize("path", **BY_NAME)
def test_no_private_and_no_global_things(path):
    source = path.read_text()
    assert "tf.keras" not in source
    assert not re.search(r"np\.random\.(seed|rand|randint|choice|normal|uniform)\(", source)
    assert not re.search(r"\b(keras|tf|ops)(\.\w+)*\._\w", source)
    assert "except: pass" not in source
    assert len(source.splitlines()) <= 300, "is there a natural seam?"


@pytest.mark.parametrize("path", **BY_NAME)
def test_no_function_body_is_over_40_lines(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            assert not body or node.end_lineno - body[0].lineno < 40, node.name


def test_one_place_chooses_the_greedy_action_on_the_host_and_one_in_the_graph():
    """The exported program has a third: LiteRT lacks an operation of Keras' argmax."""
    choosing = [path for path in MODULES if re.search(r"\.argmax\(", path.read_text())]
    users = {str(path.relative_to(PACKAGE)) for path in choosing}
    assert users == {"acting/export.py", "ops/td.py", "spaces/action_spec.py"}


def test_public_names():
    assert sorted(keras_dqn.__all__) == sorted(set(keras_dqn.__all__))
    for name in keras_dqn.__all__:
        assert getattr(keras_dqn, name).__doc__


def test_another_backend_is_refused():
    code = "import keras; keras.config.backend = lambda: 'jax'; import keras_dqn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "needs Keras' TensorFlow backend" in done.stderr
