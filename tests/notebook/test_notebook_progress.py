"""The line and the sheet that a training shows in a notebook are replaced, and not too often."""

import pytest

from cardigan.experiment.progress_line import NotebookProgress, progress_callback
from cardigan.run.journal import Event


class Page:
    """Two outputs of a cell, and how often each was updated."""

    def __init__(self):
        self.outputs, self.updates = [], 0

    def display(self, content, raw, display_id):
        assert raw and display_id
        self.outputs.append(content)
        return Handle(self, len(self.outputs) - 1)


class Handle:
    def __init__(self, page, number):
        self.page, self.number = page, number

    def update(self, content, raw):
        assert raw
        self.page.outputs[self.number] = content
        self.page.updates += 1


@pytest.fixture
def run(tmp_path):
    (tmp_path / "samples").mkdir()
    for number in (0, 64, 128):
        (tmp_path / "samples" / f"{number:08d}.png").write_bytes(b"sheet %d" % number)
    return tmp_path


def training_events(run):
    yield Event("start", 0, 0.0, {"run": str(run)})
    for number in (0, 64, 128):
        yield Event("progress", number, number / 64, {"images_per_second": 64.0})
        yield Event("samples", number, number / 64, {"file": f"samples/{number:08d}.png"})
    yield Event("stop", 128, 3.0, {"reason": "images"})


@pytest.mark.parametrize("pause_seconds, updates", [(0.0, 8), (60.0, 1)])
def test_line_and_sheet_are_replaced(run, pause_seconds, updates):
    page = Page()
    progress = NotebookProgress(page.display, pause_seconds)
    for event in training_events(run):
        progress(event)
    line, sheet = page.outputs
    assert line["text/plain"].startswith("128 images, 0:03")
    assert sheet == {"image/png": "c2hlZXQgMTI4", "text/plain": "00000128.png: generated | real"}
    assert page.updates == updates


def test_outside_a_notebook_nothing_is_displayed(monkeypatch):
    pytest.importorskip("IPython")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert progress_callback(None) is None
