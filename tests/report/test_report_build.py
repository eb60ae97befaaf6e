"""A run writes its report: samples, metrics, curves and the command to reproduce it."""

import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import cardigan
from cardigan.errors import CardiganError
from cardigan.figures.grid import png_bytes, side_by_side
from cardigan.figures.layout import GridLayout
from cardigan.report.build import duration_text, score_chart, trained_scores, write_report
from cardigan.report.sheets import sheet_halves
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event


def test_run_writes_report(tmp_path):
    small = {
        "batch_size": 16,
        "generator.width": 4,
        "discriminator.width": 4,
        "sample_every_images": 32,
        "device": "cpu",
    }
    run = cardigan.train("mnist", out=tmp_path / "run", images=128, overrides=small)
    html = (run.path / "report.html").read_text()
    num_sheets = len(list((run.path / "samples").glob("*.png")))
    assert num_sheets == 5 and html.count("data:image/png;base64,") == num_sheets + 1  # the real images once
    assert html.index("after 128 images") < html.index("after 64 images") < html.index("after 0 images")
    for shown in (
        "fd_digits",
        "standard error",
        "losses",
        "discriminator_optimizer.learning_rate",
        "Finished.",
        "Too early to say after 128 images: known from 20,000 images on.",
        "resume=True",
        "2,000 samples",
    ):
        assert shown in html
    assert "http" not in html
    result = html.index("Finished.")
    assert result < html.index("Too early to say") < html.index("Newest samples") < html.index("<details>")
    assert "<details><summary>Settings</summary>" in html and "augmentation probability" not in html
    evaluation = json.loads((run.path / "report.json").read_bytes())
    assert evaluation["images_seen"] == 128 and "2,000 samples of seed 0" in evaluation["protocol"]
    metrics = {metric["key"]: metric for metric in evaluation["metrics"]}
    assert metrics.keys() == {"fd_digits", "class_kl", "classes_covered"}
    for metric in metrics.values():
        assert metric["key"] in html and f"{metric['value']:.4g}" in html
        assert metric["standard_error"] >= 0 and metric["num_samples"] == 2_000
        assert metric["real_baseline"] is None and metric["real_baseline_error"] is None
    (run.path / "report.html").unlink()
    assert write_report(RunDirectory(run.path), full=False).exists()


def test_sheet_is_split(tmp_path):
    values = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
    path = tmp_path / "00000064.png"
    path.write_bytes(png_bytes(side_by_side(values, values + 100)))
    halves = sheet_halves(path, GridLayout(4, 8, 8))
    pixels = [np.asarray(Image.open(io.BytesIO(half))) for half in halves if half is not None]
    assert [half.shape[:2] for half in pixels] == [(18, 18)] * 2
    assert [int(half[0, 0]) for half in pixels] == [0, 100] and [int(half[-1, -1]) for half in pixels] == [3, 103]
    assert sheet_halves(path, GridLayout(9, 8, 8)) == (path.read_bytes(), None)  # another layout


def test_score_chart_marks_the_best():
    def scored(images_seen, score):
        return Event("checkpoint", images_seen, 1.0, {"score": score})

    events = [scored(0, 740.0), scored(64, 300.0), scored(128, 12.5), scored(192, 20.0)]
    chart = score_chart(trained_scores(events))
    assert "the best, 12.5" in chart and "740" not in chart and "300" not in re.sub(r'points="[^"]*"', "", chart)
    across = float(re.search(r'<circle cx="([\d.]+)"', chart)[1])
    points = re.search(r'points="([^"]+)"', chart)[1].split()
    assert across == float(points[1].split(",")[0])
    assert score_chart(trained_scores(events[:2])) == ""


def test_duration_text():
    assert [duration_text(seconds) for seconds in (45.0, 600.0, 9_000.0)] == ["45 s", "10 min", "2.5 h"]


def test_report_of_non_run_raises(tmp_path):
    with pytest.raises(CardiganError, match="not a run directory"):
        write_report(RunDirectory(tmp_path))
