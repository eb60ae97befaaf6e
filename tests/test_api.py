"""The Python surface: keywords of `train`, what a finished run offers, and the verbs that return objects."""

import shutil

import numpy as np
import pytest
from PIL import Image

import cardigan
from cardigan.errors import CardiganError
from cardigan.experiment.progress_line import TerminalProgress, progress_callback
from cardigan.run.journal import Event

TINY = {"generator.width": 4, "discriminator.width": 4, "conditional": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> cardigan.Run:
    return cardigan.train(
        "mnist",
        images=64,
        size=16,
        batch_size=16,
        device="cpu",
        verbose=False,
        out=tmp_path_factory.mktemp("runs") / "run",
        overrides={**TINY, "checkpoint_every_images": 32},
    )


def test_keywords_of_train_are_settings(run):
    assert (run.config.data.height, run.config.data.width, run.config.batch_size) == (16, 16, 16)
    with pytest.raises(CardiganError, match="batch_size is given as an argument and in overrides"):
        cardigan.train("mnist", batch_size=8, overrides={"batch_size": 16})


def test_height_and_width_are_given_as_a_pair(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 16, 3), np.uint8)
    run = cardigan.train(
        pixels, images=16, size=(24, 16), batch_size=8, verbose=False, out=tmp_path / "run",
        recipe="images-dcgan", overrides={"generator.width": 4, "discriminator.width": 4},
    )  # fmt: skip
    assert run.sample(2).shape == (2, 24, 16, 3)


def test_run_offers_model_samples_history_and_best(run):
    assert np.array_equal(run.sample(3, seed=5), cardigan.load(run.path).sample(3, seed=5))
    assert np.array_equal(cardigan.load(run).sample(2), run.model.sample(2))
    history = run.history
    columns = set(history.columns) if hasattr(history, "columns") else {name for row in history for name in row}
    assert {"images_seen", "seconds", "discriminator_loss", "score"} <= columns
    assert run.best is not None and run.best.parent.name == "checkpoints" and run.score is not None
    lines = repr(run).splitlines()
    assert len(lines) == 5 and "recipe mnist, 64 images" in lines[0] and "score" in lines[2] and "health" in lines[3]


def test_earlier_run_is_opened(run, tmp_path):
    again = cardigan.Run.open(str(run.path))
    assert again == run and again.score == run.score
    unfinished = shutil.copytree(run.path, tmp_path / "unfinished")
    lines = (unfinished / "journal.jsonl").read_text().splitlines(keepends=True)
    (unfinished / "journal.jsonl").write_text("".join(lines[:-1]))
    assert cardigan.Run.open(unfinished).stopped_by == "" and "Not stopped" in repr(cardigan.Run.open(unfinished))
    with pytest.raises(cardigan.CardiganError, match="nothing"):
        cardigan.Run.open(tmp_path / "nothing")


def test_verbs_take_a_run_or_a_path_and_return_objects(run, tmp_path):
    for model in (run, run.path, str(run.path), run.model):
        report = cardigan.evaluate(model, num_samples=100, metrics=["frechet"], baseline=False)
        assert report.metrics["fd_digits"].num_samples == 100
    diagnosis = cardigan.diagnose(run)
    assert diagnosis.diagnosis == "too early" and diagnosis.stop_step is None
    frames = cardigan.walk(run, seeds=[1, 2], num_frames=5, out=tmp_path / "walk.webp")
    assert frames.shape == (5, 16, 16, 1) and (tmp_path / "walk.webp").exists()
    with pytest.raises(CardiganError, match="exists already"):
        cardigan.walk(run, out=tmp_path / "walk.webp")


def test_compare_evaluates_under_one_protocol(run):
    reports = cardigan.compare(run, run.best, num_samples=100, metrics=["frechet"], baseline=False)
    assert list(reports) == [str(run.path), str(run.best)]
    with pytest.raises(CardiganError, match="One model cannot be compared"):
        cardigan.compare(run)


def test_check_returns_findings(tmp_path):
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    findings = cardigan.check(tmp_path, num_workers=0)
    assert findings.num_images == 5 and findings.num_readable == 4


def test_progress_is_one_line(capsys, monkeypatch):
    assert progress_callback(False) is None
    callback = progress_callback(True)
    assert isinstance(callback, TerminalProgress)
    callback(Event("progress", 1_000, 65.0, {"images_per_second": 123.0}))
    callback(Event("checkpoint", 1_000, 65.0, {"score": 4.5}))
    assert capsys.readouterr().err == "1,000 images, 1:05, 123 images/s, score 4.50, too early\n"


def test_package_help_begins_with_what_a_user_needs():
    text = cardigan.__doc__ or ""
    assert text.index("cardigan.train(") < text.index("run.sample(") < text.index("cardigan.load(")
