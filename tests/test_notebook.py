"""The notebook: a valid file without outputs, whose cells run one after the other."""

import json
import pathlib
import re

import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "cartpole.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_it_is_of_format_4_5(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in ids)
    for cell in notebook["cells"]:
        fields = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            fields |= {"execution_count", "outputs"}
        assert set(cell) == fields
        assert all(isinstance(line, str) for line in cell["source"])


def test_no_outputs_are_stored(notebook):
    assert all(cell["outputs"] == [] for cell in code_cells(notebook))
    assert all(cell["execution_count"] is None for cell in code_cells(notebook))


def test_the_cells_run_in_order(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    settings, *cells = code_cells(notebook)
    namespace = {}
    exec("".join(settings["source"]), namespace)
    assert namespace["EPOCHS"] > 1
    namespace["EPOCHS"] = 1
    for cell in cells:
        if "display" not in cell["metadata"].get("tags", ()):  # IPython may not be installed
            exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
    assert (tmp_path / "cartpole.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "cartpole.keras").exists()
    assert re.search(r"^return [0-9.]+$", capsys.readouterr().out, re.MULTILINE)
