"""Make the notebook and the page of the tutorial from its script: `python docs/tutorial/make_notebook.py`.

The code of the answers is folded in the notebook. A test compares both files with the script.
"""

from pathlib import Path

import jupytext
from nbformat import NotebookNode

SCRIPT = Path(__file__).parent / "dcgan_mnist.py"
ANSWERS = "## 10. Answers"


def tutorial_notebook() -> NotebookNode:
    """Return the script as a notebook, without outputs."""
    notebook = jupytext.read(SCRIPT)
    answers = False
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # random ones would change the file each time
        answers = answers or ANSWERS in cell.source
        if answers and cell.cell_type == "code":
            cell.metadata["jupyter"] = {"source_hidden": True}
    notebook.metadata.pop("jupytext")
    return notebook


def main() -> None:
    jupytext.write(jupytext.read(SCRIPT), SCRIPT.with_suffix(".md"))
    jupytext.write(tutorial_notebook(), SCRIPT.with_suffix(".ipynb"), fmt="ipynb")


if __name__ == "__main__":
    main()
