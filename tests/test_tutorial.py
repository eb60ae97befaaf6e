"""The tutorial runs on a small budget, as script and as notebook; its page, notebook and pictures fit the script."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "tutorial"
SCRIPT, PAGE, NOTEBOOK = (FOLDER / f"dcgan_mnist.{ending}" for ending in ("py", "md", "ipynb"))


def test_tutorial_runs_and_writes_images(tmp_path):
    budget = {**os.environ, "TUTORIAL": "test", "TUTORIAL_OUT": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, str(SCRIPT)], env=budget, check=True, capture_output=True, text=True
    ).stdout
    assert "images 96 (4, 32, 32, 3)" in output
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["000000.png", "last.png", "line.png"]
    with Image.open(tmp_path / "last.png") as picture:
        assert picture.size == (8 * 32 + 8 + 8 * 32, 8 * 32)


def test_notebook_runs_and_shows_pictures(tmp_path):
    """Of the training cell, and of the line between two digits."""
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install 'cardigan[dev]'")
    pytest.importorskip("nbconvert", reason="nbconvert is not installed: pip install 'cardigan[dev]'")
    folders = {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_CONFIG_DIR": str(tmp_path / "jupyter")}
    budget = {**os.environ, **folders, "TUTORIAL": "test", "TUTORIAL_OUT": str(tmp_path / "out")}
    command = ["nbconvert", "--execute", "--to", "notebook", "--output-dir", str(tmp_path), str(NOTEBOOK)]
    subprocess.run([sys.executable, "-m", *command], env=budget, check=True, capture_output=True)
    cells = jupytext.read(tmp_path / NOTEBOOK.name).cells
    pictures = [sum("image/png" in output.get("data", {}) for output in cell.get("outputs", [])) for cell in cells]
    assert sum(pictures) >= 3
    (training,) = [number for number, cell in enumerate(cells) if "for step in range(STEPS)" in cell.source]
    assert pictures[training] == 2, "the picture of the training, and the one that the cell returns"


@pytest.mark.parametrize("file", [PAGE, NOTEBOOK])
def test_page_and_notebook_equal_script(file):
    """After a change of the script: `python docs/tutorial/make_notebook.py`."""
    made, script = (
        [(cell.cell_type, cell.source.strip()) for cell in jupytext.read(path).cells] for path in (file, SCRIPT)
    )
    assert made == script


def test_notebook_is_as_made():
    """Without outputs, and with the answers folded."""
    make_notebook = runpy.run_path(str(FOLDER / "make_notebook.py"))
    assert jupytext.writes(make_notebook["tutorial_notebook"](), fmt="ipynb") + "\n" == NOTEBOOK.read_text()


def test_pictures_of_page_are_small_and_used():
    used = set(re.findall(r"\]\((images/[^)]+)\)", PAGE.read_text()))
    assert used == {f"images/{path.name}" for path in (FOLDER / "images").iterdir()}
    assert sum((FOLDER / name).stat().st_size for name in used) < 500_000
