"""A notebook that nbconvert executes: training shows one line and one sheet, `explore` shows the widget."""

import base64
import json
import os
import subprocess
import sys

import pytest

for package in ("anywidget", "ipykernel", "nbconvert", "nbformat"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'cardigan[dev]'")
import nbformat  # noqa: E402

COUNT_MESSAGES = """
import cardigan
sent = []
def count(message):
    sent.append(message["msg_type"])
    return message
get_ipython().display_pub.register_hook(count)
"""
TRAIN = """
small = {"batch_size": 16, "generator.width": 8, "discriminator.width": 8, "data.max_images": 256, "device": "cpu"}
often = {"checkpoint_every_images": 128, "sample_every_images": 16}
run = cardigan.train("mnist", images=256, out="run", overrides={**small, **often})
"""
CELLS = [
    COUNT_MESSAGES,
    TRAIN,
    "print(sent.count('display_data'), sent.count('update_display_data'))",
    "widget = run.model.explore()\nwidget",
    "widget.x, widget.label = 0.25, '7'\nprint(widget.z.shape, widget.image.size, widget.labels)",
]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Return the folder, the executed cells and the stored state of the widgets."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    nbformat.write(notebook, folder / "in.ipynb")
    settings = {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_CONFIG_DIR": str(folder / "jupyter")}
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook", "--output", "out", "in.ipynb"],
        cwd=folder,
        env={**os.environ, **settings},
        check=True,
        capture_output=True,
    )
    notebook = nbformat.read(folder / "out.ipynb", as_version=4)
    return folder, notebook.cells, notebook.metadata.widgets[WIDGET_STATE]["state"]


def test_training_shows_one_line_and_the_newest_sheet(executed):
    folder, cells, _ = executed
    assert [output.output_type for output in cells[1].outputs] == ["display_data"] * 2
    line, sheet = (output.data for output in cells[1].outputs)
    assert line["text/plain"].startswith("256 images, 0:") and "\n" not in line["text/plain"]
    newest = max((folder / "run" / "samples").glob("[0-9]*.png"))
    assert base64.b64decode(sheet["image/png"]) == newest.read_bytes()


def test_training_does_not_flood_the_page(executed):
    folder, cells, _ = executed
    shown, updated = map(int, cells[2].outputs[0].text.split())
    events = [json.loads(line) for line in (folder / "run" / "journal.jsonl").read_text().splitlines()]
    assert shown == 2
    assert 1 <= updated <= 2 * (2 + events[-1]["elapsed_seconds"])


def test_explore_shows_the_widget(executed):
    _, cells, states = executed
    view = cells[3].outputs[0].data[WIDGET_VIEW]
    widget = states[view["model_id"]]
    assert (widget["model_module"], widget["state"]["x"], widget["state"]["label"]) == ("anywidget", 0.25, "7")
    (png,) = [buffer["data"] for buffer in widget["buffers"] if buffer["path"] == ["image_png"]]
    assert base64.b64decode(png).startswith(b"\x89PNG")
    assert cells[4].outputs[0].text == "(1, 64) (32, 32) [7]\n"
