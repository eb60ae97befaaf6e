"""Cards say what a model is, from whatever is left of its run, and give no folder of the machine away; and the
command line around them."""

import hashlib
import html
import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from random_snapshots import random_snapshot
from safetensors import safe_open

import cardigan
from cardigan import api
from cardigan.cli.main import run as command
from cardigan.data.stats import DatasetStats
from cardigan.errors import CardiganError
from cardigan.experiment.auto import auto_config
from cardigan.exports.card import model_card, weights_hash
from cardigan.exports.output_paths import model_name
from cardigan.exports.training_record import MetricRow, read_report_metrics, training_command
from cardigan.models.snapshot import read_snapshot, write_snapshot
from cardigan.overrides import experiment_settings, override
from cardigan.recipes import config_for

SECTIONS = ("Data", "Recipe", "Time", "Metrics", "Limits", "License of the data", "Use", "Reproduce", "Hashes")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "conditional": True}
    return cardigan.train("mnist", out=tmp_path_factory.mktemp("runs") / "digits", images=32, overrides=settings).path


def test_card_of_run_checkpoint_and_weights_file(run, tmp_path):
    write_snapshot(tmp_path / "lone.safetensors", read_snapshot(run))
    cards = [
        model_card(read_snapshot(path), path, {"x.onnx": "ab" * 32})
        for path in (run, run / "checkpoints" / "00000032", tmp_path / "lone.safetensors")
    ]
    for card in cards:
        assert card.startswith(
            "---\nlibrary_name: cardigan\nlicense: cc-by-sa-3.0\npipeline_tag: unconditional-image-generation\n"
        )
        assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(SECTIONS)
        assert f"| x.onnx | `{'ab' * 32}` |" in card and weights_hash(read_snapshot(run).generator) in card
        assert str(tmp_path) not in card and str(run.parent) not in card
    assert "32 images in" in cards[0] and "fd_digits" in cards[0] and "2,000 samples of seed 0" in cards[0]
    assert "not part of a run" in cards[2] and "Not evaluated" in cards[2]


def test_names_in_cards_are_text():
    """Names of classes and sources come from files; a hub renders a card's HTML and links."""
    snapshot = random_snapshot("dcgan", classes=2)
    hostile = "<img src=x onerror=alert(1)> [a](javascript:b) `c` | *d*"
    snapshot = replace(snapshot, spec=replace(snapshot.spec, class_names=(hostile, "plain_name")))
    snapshot = replace(snapshot, config=override(snapshot.config, {"data.source": f"hf:{hostile}/x"}))
    body = model_card(snapshot, data_license=hostile).partition("\n---\n")[2].partition("```")[0]
    assert "plain_name" in body and html.unescape(body).count(hostile) >= 3
    assert not set("<[`*|") & set(body.partition("classes: 2")[2].partition("\n")[0])
    assert "<img" not in body and "](" not in body


def report_content(**changes):
    metric = {
        "key": "fd_digits",
        "value": 13.24567,
        "standard_error": 0.4123,
        "real_baseline": 1.5,
        "real_baseline_error": 0.12,
        "num_samples": 2_000,
    }
    return {"images_seen": 32, "metrics": [metric], "protocol": "2,000 samples of seed 0", **changes}


def test_report_metrics_as_text(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report_content()))
    rows = (MetricRow("fd_digits", "13.25", "0.41", "1.50 ± 0.12"),)
    assert read_report_metrics(path, 32) == (rows, "2,000 samples of seed 0")


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        json.dumps(report_content())[:-9].encode(),
        json.dumps(report_content(images_seen=64)).encode(),
        json.dumps(report_content(metrics=[])).encode(),
        json.dumps(report_content(metrics=[{"key": "fd_digits"}])).encode(),
        json.dumps(report_content(metrics=[{**report_content()["metrics"][0], "value": "<b>"}])).encode(),
        json.dumps(report_content(metrics=[{**report_content()["metrics"][0], "value": 10**400}])).encode(),
        json.dumps(report_content(metrics=[{**report_content()["metrics"][0], "real_baseline": [1]}])).encode(),
    ],
)
def test_missing_damaged_or_other_report_gives_no_metrics(content, tmp_path):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)
    assert read_report_metrics(path, 32) == ((), "")


def test_card_of_run_without_report(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "report.json").unlink()
    assert "Not evaluated" in model_card(read_snapshot(copy), copy)


def test_card_command_reproduces_weights(run, tmp_path):
    words = shlex.split(training_command(read_snapshot(run).config, 32))
    assert words[:3] == ["cardigan", "train", "mnist"]
    assert command([*words[1:], "--quiet", "--out", str(tmp_path / "again"), "--device", "cpu"]) == 0
    assert weights_hash(read_snapshot(tmp_path / "again").generator) == weights_hash(read_snapshot(run).generator)


def test_card_command_gives_penalties_one_by_one(run, monkeypatch):
    """One changed, one removed, one added; the words are those that `cardigan train` reads."""
    snapshot = read_snapshot(run)
    config = override(snapshot.config, {"objective.penalties": {"r1": 0.5, "dragan": 10.0}})
    words = shlex.split(training_command(config, 32))
    seen = []
    monkeypatch.setattr(api, "train", lambda source, **settings: seen.append(settings["overrides"]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command([*words[1:], "--quiet"])
    base = config_for("mnist", config.recipe)
    assert override(base, seen[0]).objective.penalties == {"r1": 0.5, "dragan": 10.0}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"discriminator.network": "dcgan", "batch_size": 16, "objective.penalties.r1": 100.0},
        {"generator.width": 12, "augment.operations": "", "augment.probability": 0.0},
    ],
)
def test_card_command_gives_what_would_be_chosen(given, monkeypatch):
    """On another machine, at another speed, other settings would be chosen for the recipe's images."""
    base = config_for("photos")
    stats = DatasetStats(num_images=5_000, height=48, width=48, same_aspect_ratio=True, channels=4)
    chosen, _ = auto_config(override(base, given), set(given), stats, "cpu", lambda config: 500.0)
    seen = []
    monkeypatch.setattr(api, "train", lambda source, **settings: seen.append(settings["overrides"]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command([*shlex.split(training_command(chosen, 32))[1:], "--quiet"])
    again, _ = auto_config(
        override(base, {**seen[0], "images": 32, "minutes": None}), {*seen[0], "images"}, stats, "cuda", lambda _: 5.0
    )
    assert experiment_settings(again) == experiment_settings(chosen)


def test_weights_hash_covers_every_value():
    snapshot = random_snapshot()
    before = weights_hash(snapshot.generator)
    snapshot.generator.norms[0].running_mean[0] += 1e-3
    assert weights_hash(snapshot.generator) != before


def test_class_names_and_license():
    card = model_card(random_snapshot(classes=2, names=("cat", "dog")), data_license="CC0-1.0")
    assert "classes: 2 (cat, dog)" in card and "license: cc0-1.0" in card


def test_model_names(run):
    assert model_name(run) == "digits"
    assert model_name(run / "checkpoints" / "00000032") == "digits-00000032"
    assert model_name(run / "generator.safetensors") == "generator"


def test_export_one_format(run, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    words = ["export", str(run), "--format", "safetensors", "--weights", "int8", "--out", str(out)]
    assert command(words) == 0
    said = capsys.readouterr().out
    assert (
        "largest difference from PyTorch 0.0e+00" in said and hashlib.sha256(out.read_bytes()).hexdigest()[:16] in said
    )
    with safe_open(out, framework="np") as file:
        assert json.loads(file.metadata()["cardigan"])["card"].startswith("---")
    assert cardigan.load(out).sample(2).shape == (2, 32, 32, 1)
    assert command(words) == 2 and "add --overwrite" in capsys.readouterr().err
    assert command([*words, "--overwrite"]) == 0
    out.unlink()
    assert command(words) == 2 and "mine.safetensors.card.md exists already" in capsys.readouterr().err


def test_export_several_formats(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["export", str(run), "--format", "safetensors", "--format", "pt2", "--format", "samples", "--samples", "3"]
    assert command(words) == 0
    folder = tmp_path / "digits-export"
    assert {each.name for each in folder.iterdir()} == {
        "generator.safetensors",
        "generator.pt2",
        "samples",
        "README.md",
    }
    card = (folder / "README.md").read_text()
    for name in ("generator.safetensors", "generator.pt2", "samples/manifest.json"):
        assert f"| {name} | `{hashlib.sha256((folder / name).read_bytes()).hexdigest()}` |" in card
    assert card.count('gan = cardigan.load("generator.safetensors")') == 1
    assert command(words) == 2 and "never replaced" in capsys.readouterr().err


def test_loaded_model_keeps_its_path(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = cardigan.export(cardigan.load(run))
    assert found.path.name == "digits.safetensors"
    assert "32 images in" in found.card.read_text()
    model = cardigan.load(found.path)
    with pytest.raises(CardiganError, match="is the model itself"):
        cardigan.export(model, "safetensors", found.path, weights="int8", overwrite=True)
    shutil.copytree(run, "copy")
    model = cardigan.load("copy/checkpoints/00000032")
    shutil.rmtree("copy/checkpoints")  # as a training does that goes on
    assert "32 images in" in cardigan.export(model).card.read_text()
    shutil.rmtree("copy")
    assert "not part of a run" in cardigan.export(model, overwrite=True).card.read_text()


def test_quantization_cost_is_evaluated(run, tmp_path, capsys):
    words = [
        "export",
        str(run),
        "--weights",
        "int8",
        "--format",
        "safetensors",
        "--evaluate",
        "--evaluate-samples",
        "100",
        "--out",
        str(tmp_path / "a.safetensors"),
    ]
    assert command(words) == 0
    card = (tmp_path / "a.safetensors.card.md").read_text()
    assert (
        "| metric | fp32 | int8 | differs | real baseline | better |" in card
        and "Protocol: 100 samples of seed 0" in card
    )
    assert "| fd_digits |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "onxx"], "Unknown format 'onxx': did you mean 'onnx'?"),
        ([], "No format was given"),
        (["--format", "onnx", "--samples", "3"], "--samples has no effect without --format samples"),
        (["--format", "onnx", "--out", "it.pt2"], "expected a name ending in .onnx"),
        (["--format", "samples", "--out", "it.png"], "expected a name ending in .zip or .npz or .parquet, or a folder"),
        (["--format", "pt2", "--weights", "int8"], "pt2 supports float32"),
        (["--format", "onnx", "--weights", "int4"], "int4"),
        (["--format", "onnx", "--evaluate-samples", "5"], "--evaluate-samples has no effect"),
        (["--format", "samples", "--samples", "0"], "num_samples is 0"),
        (["--format", "onnx", "--out", "there/it.onnx"], "does not exist: create it"),
        (["--format", "onnx", "--format", "pt2", "--overwrite"], "--overwrite has no effect"),
    ],
)
def test_invalid_arguments(words, said, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(["export", str(run), *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_damaged_file_raises(tmp_path, capsys):
    whole = tmp_path / "whole.safetensors"
    write_snapshot(whole, random_snapshot(), "int8")
    content = whole.read_bytes()
    for name, damaged, advice in (
        ("short", content[:-9], "give a generator.safetensors that cardigan wrote"),
        ("scales", content.replace(b"::scale", b"::scalf"), "use another copy"),
        ("types", content.replace(b'"I8"', b'"U8"'), "use another copy"),
    ):
        assert damaged != content
        (tmp_path / f"{name}.safetensors").write_bytes(damaged)
        assert command(["export", str(tmp_path / f"{name}.safetensors"), "--format", "safetensors"]) == 2, name
        assert advice in capsys.readouterr().err, name
    assert np.array_equal(cardigan.load(whole).sample(2), cardigan.load(whole).sample(2))


def test_cards_of_quantized_and_foreign_weights(run, tmp_path):
    card = cardigan.export(run, "safetensors", tmp_path / "a.safetensors", weights="int8").card.read_text()
    assert "These metrics are of the weights before quantization to int8; its effect was not evaluated." in card
    again = cardigan.export(tmp_path / "a.safetensors", "safetensors", tmp_path / "b.safetensors").card.read_text()
    assert "read from a file with int8 weights" in again
    other = replace(random_snapshot(), foreign=True, images_seen=0)
    other = replace(other, config=replace(other.config, data=replace(other.config.data, source="")))
    card = model_card(other)
    assert (
        "trained by another program" in card
        and "images seen" not in card
        and "## Reproduce" not in card
        and "discriminator" not in card
    )
    write_snapshot(run / "other.safetensors", replace(random_snapshot(), images_seen=32))
    assert "not part of a run" in model_card(
        read_snapshot(run / "other.safetensors"), run / "other.safetensors"
    )  # it lies in one, but is not of it
    (run / "other.safetensors").unlink()


@pytest.mark.parametrize(
    ("given", "short"), [("CC-BY-4.0", "cc-by-4.0"), ("[x", "other"), ("my own\nlicense: [", "other")]
)
def test_license_is_escaped_in_front_matter(given, short):
    card = model_card(random_snapshot(), data_license=given)
    assert yaml.safe_load(card.split("---")[1])["license"] == short
