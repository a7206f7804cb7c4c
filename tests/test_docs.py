"""`docs/architecture.md` names what there is."""

import pathlib
import re

import keras

import keras_dqn

ROOT = pathlib.Path(keras_dqn.__file__).parents[1]
TEXT = (pathlib.Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
SOURCE = "".join(path.read_text() for path in (ROOT / "keras_dqn").rglob("*.py"))


def test_each_file_it_names_is_there():
    names = re.findall(r"`((?:tests/)?\w+/[\w/]*(?:\.py)?)`", TEXT)
    assert len(names) > 40
    for name in names:
        folder = (
            pathlib.Path(__file__).parents[1] if name.startswith("tests/") else ROOT / "keras_dqn"
        )
        assert (folder / name).exists(), name


def test_each_function_it_names_is_there():
    names = set(re.findall(r"\b(\w+)\(", TEXT)) - {"soft_update"}
    assert len(names) > 30
    of_keras = {"apply_gradients"} | set(dir(keras.Model))
    for name in names - of_keras:
        assert re.search(rf"\bdef {name}\(", SOURCE), name
