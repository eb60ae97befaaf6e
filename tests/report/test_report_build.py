"""A run leaves its report behind: one file with its samples, its judgement, its curves and the command to do it again."""

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
        "stopped by images",
        "2,000 samples",
    ):
        assert shown in html
    assert "http" not in html
    (run.path / "report.html").unlink()
    assert write_report(RunDirectory(run.path), full=False).exists()


def test_report_of_non_run_raises(tmp_path):
    with pytest.raises(CardiganError, match="no run directory"):
        write_report(RunDirectory(tmp_path))
