"""The notebooks run from top to bottom, in order, and read what headtool writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib import pyplot

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NAMES = sorted(file.name for file in FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all of them: the first makes the runs that the others find."""
    return tmp_path_factory.mktemp("notebooks")


def test_there_are_four():
    assert len(NAMES) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, place, monkeypatch, capsys):
    """Each code cell in order in one namespace, as Jupyter would run them; none is stored with outputs."""
    pyplot.switch_backend("agg")
    monkeypatch.chdir(place)
    cells = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    namespace: dict = {}
    for number, cell in enumerate(code):
        assert cell["outputs"] == []
        exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), namespace)
    runs = [value for value in namespace.values() if isinstance(value, Path)]
    assert runs
    for run in runs:
        assert json.loads((place / run / "manifest.json").read_text())["status"] == "done"
    pyplot.close("all")
    capsys.readouterr()
    assert [file.name for file in place.iterdir()] == ["runs"]
