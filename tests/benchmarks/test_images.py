"""The comparison of recipes for images of any kind: one result per run, a table, a page for blind votes."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import cardigan
import images
from blind_page import blind_page
from cardigan.metrics import quick
from cardigan.overrides import override
from cardigan.recipes import config_for
from provoked_faults import FAULTS, fault_settings

SMALL = {
    **{"batch_size": 8, "data.height": 16, "data.width": 16, "generator.width": 2, "discriminator.width": 2},
    **{"device": "cpu", "precision": "fp32", "data.num_workers": 0},
}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two finished runs of the same set, time and seed."""
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quick, "MIN_SAMPLES", 8)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(110):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    for label in ("one", "other"):
        out = tmp_path / "runs" / f"photos-1min-images-{label}-0"
        cardigan.train(folder, recipe="images", images=16, out=out, overrides=SMALL)
    return tmp_path / "runs"


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_settings(name):
    config = override(config_for("photos", "images"), fault_settings(name, 24_000, 0))
    assert config.checkpoint_every_images == 6_000 and config.on_failure == "warn"
    assert name == "none" or config != override(config_for("photos", "images"), fault_settings("none", 24_000, 0))


def test_results_table_and_page(runs):
    rows = [images.row(runs, "photos", "images", 0, (0.0, 1.0), {}, label, 100) for label in ("one", "other")]
    assert {"fd_pixels", "fd_efficientnet_lite2"} & set(rows[0])
    assert {"swd_16", "nyquist_energy", "real_nyquist_energy", "recall", "authenticity"} <= set(rows[0])
    again = images.row(runs, "photos", "images", 0, (0.0, 1.0), {}, "one", 100)
    assert again == rows[0] == json.loads((runs / "photos-1min-images-one-0" / "result.json").read_text())
    lines = images.table([*rows, {**rows[0], "seed": 1, "images": 32}]).splitlines()
    assert len(lines) == 4 and "| images one | 24 (16-32) |" in lines[2]
    page = blind_page(runs, 3).read_text()
    pairs = json.loads(re.search(r"const pairs = (.*?); const", page).group(1))
    assert len(pairs) == 3
    assert all({pair["left"]["name"], pair["right"]["name"]} == {"images one", "images other"} for pair in pairs)


def test_a_run_is_continued_for_more_minutes(tmp_path, monkeypatch):
    """In a copy, so that the shorter run and its result stay."""
    calls = []

    def train(source, out, resume, minutes, **_):
        calls.append((minutes, resume, (out / "journal.jsonl").exists()))
        out.mkdir(exist_ok=True)
        (out / "journal.jsonl").touch()

    monkeypatch.setattr(images.cardigan, "train", train)
    monkeypatch.setattr(images, "image_set", lambda name: tmp_path / name)
    monkeypatch.setattr(images, "measure", lambda run, samples: {"images": len(calls)})
    rows = [
        images.row(tmp_path, "photos", "images", 0, minutes, {}, "", 100) for minutes in ((0.0, 15.0), (15.0, 30.0))
    ]
    assert calls == [(15.0, False, False), (30.0, True, True)]
    assert [(row["minutes"], row["images"]) for row in rows] == [(15.0, 1), (30.0, 2)]
    assert json.loads((tmp_path / "photos-15min-images-0" / "result.json").read_text()) == rows[0]


@pytest.mark.parametrize(
    ("stopped_by", "minutes", "trains"),
    [("", 15, True), ("interrupt", 15, True), ("minutes", 10, True), ("minutes", 15, False), ("images", None, False)],
)
def test_only_an_unfinished_run_is_continued(tmp_path, monkeypatch, stopped_by, minutes, trains):
    opened = SimpleNamespace(stopped_by=stopped_by, config=SimpleNamespace(minutes=minutes))
    calls = []
    (tmp_path / "photos-15min-images-0").mkdir()
    monkeypatch.setattr(images.cardigan.Run, "open", lambda path: opened)
    monkeypatch.setattr(images.cardigan, "train", lambda source, resume, **_: calls.append(resume))
    monkeypatch.setattr(images, "image_set", lambda name: tmp_path / name)
    monkeypatch.setattr(images, "measure", lambda run, samples: {})
    images.row(tmp_path, "photos", "images", 0, (0.0, 15.0), {}, "", 100)
    assert calls == ([True] if trains else [])
