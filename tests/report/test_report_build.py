"""A run writes its report: samples, metrics, curves and the command to reproduce it."""

import json

import pytest

import cardigan
from cardigan.errors import CardiganError
from cardigan.report.build import write_report
from cardigan.run.directory import RunDirectory


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
    assert html.count("data:image/png;base64,") == len(list((run.path / "samples").glob("*.png"))) == 5
    for shown in (
        "fd_digits",
        "standard error",
        "losses",
        "discriminator_optimizer.learning_rate",
        "<td>Finished</td>",
        "Too early to say after 128 images: known from 20,000 images on.",
        "resume=True",
        "2,000 samples",
    ):
        assert shown in html
    assert "http" not in html
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


def test_report_of_non_run_raises(tmp_path):
    with pytest.raises(CardiganError, match="not a run directory"):
        write_report(RunDirectory(tmp_path))
