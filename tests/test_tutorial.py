"""The tutorial runs on a small budget, converts to a notebook, and its page and pictures fit the script."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "tutorial"
SCRIPT, PAGE = FOLDER / "dcgan_mnist.py", FOLDER / "dcgan_mnist.md"


def test_tutorial_runs_and_writes_images(tmp_path):
    budget = {**os.environ, "TUTORIAL": "test", "TUTORIAL_OUT": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, str(SCRIPT)], env=budget, check=True, capture_output=True, text=True
    ).stdout
    assert "images 96 (4, 32, 32, 3)" in output
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["000000.png", "last.png", "line.png"]
    with Image.open(tmp_path / "last.png") as picture:
        assert picture.size == (8 * 32 + 8 + 8 * 32, 8 * 32)


def test_tutorial_converts_to_notebook():
    notebook = jupytext.read(SCRIPT)
    assert sum(cell.cell_type == "markdown" for cell in notebook.cells) >= 6
    assert sum(cell.cell_type == "code" for cell in notebook.cells) >= 6


def test_page_equals_script():
    """After a change of the script: `jupytext --to md docs/tutorial/dcgan_mnist.py`."""
    page, script = (
        [(cell.cell_type, cell.source.strip()) for cell in jupytext.read(file).cells] for file in (PAGE, SCRIPT)
    )
    assert page == script


def test_pictures_of_page_are_small_and_used():
    used = set(re.findall(r"\]\((images/[^)]+)\)", PAGE.read_text()))
    assert used == {f"images/{path.name}" for path in (FOLDER / "images").iterdir()}
    assert sum((FOLDER / name).stat().st_size for name in used) < 500_000
