"""The tutorial runs on a small budget and converts to a notebook."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial" / "dcgan_mnist.py"


def test_tutorial_runs_and_writes_images(tmp_path):
    budget = {**os.environ, "TUTORIAL_STEPS": "3", "TUTORIAL_WIDTH": "4", "TUTORIAL_OUT": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, str(TUTORIAL)], env=budget, check=True, capture_output=True, text=True
    ).stdout
    assert "images 192 (4, 64, 64, 3)" in output
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["000000.png", "000002.png"]


def test_tutorial_converts_to_notebook():
    notebook = jupytext.read(TUTORIAL)
    assert sum(cell.cell_type == "markdown" for cell in notebook.cells) >= 6
    assert sum(cell.cell_type == "code" for cell in notebook.cells) >= 6
