"""A changed file of a run is noticed before the run is resumed, whatever was changed, and nothing is overwritten."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import cardigan
from cardigan.errors import CardiganError
from cardigan.experiment.finished_run import Run
from cardigan.files.sha256 import json_sha256
from cardigan.overrides import experiment_settings
from cardigan.run.checkpoint import (
    CheckpointMetadata,
    load_latest_checkpoint,
    read_checkpoint_metadata,
    rollback_to,
    save_checkpoint,
)
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.integrity import check_unchanged

SMALL = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "conditional": False}


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """A run on a file of images. Resuming one takes its settings from `config.json`."""
    folder = tmp_path_factory.mktemp("run")
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (32, 16, 16), dtype=np.uint8))
    cardigan.train(
        str(folder / "images.npy"),
        recipe="mnist",
        out=folder / "run",
        images=32,
        overrides=SMALL | {"checkpoint_every_images": 16},
    )
    return RunDirectory(folder / "run")


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of the trained run, next to its images."""
    shutil.copytree(trained_run.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def resume(run: RunDirectory) -> Run:
    source = json.loads(run.config.read_bytes())["config"]["data"]["source"]
    return cardigan.train(source, out=run.path, images=48, resume=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"half_life_images": ', '"half_life_images": 1'),
        ('"recipe": "mnist"', '"recipe": "lnist"'),
        ('"seed": 0', '"seed": 4'),
        ('"learning_rate": 0.', '"learning_rate": 1.'),
    ],
)
def test_changed_config_is_not_resumed(run, before, after):
    content = run.config.read_text()
    changed = content.replace(before, after, 1)
    assert changed != content
    run.config.write_text(changed)
    with pytest.raises(CardiganError, match=r"config\.json was changed .*--out NEW"):
        resume(run)
    assert run.config.read_text() == changed


def test_any_changed_byte_of_config_is_noticed(run):
    content = run.config.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(content), 60, replace=False):
        changed = bytearray(content)
        changed[place] ^= 1
        if changed[place : place + 1].isspace() and content[place : place + 1].isspace():
            continue  # the layout of the text has no meaning
        run.config.write_bytes(changed)
        with pytest.raises(CardiganError):
            check_unchanged(run)


def test_config_of_another_run_is_noticed(run):
    """It is intact, but it does not belong to the checkpoints."""
    content = json.loads(run.config.read_bytes())
    del content["sha256"]
    content["config"]["seed"] += 1
    run.config.write_text(json.dumps({**content, "sha256": json_sha256(content)}))
    with pytest.raises(CardiganError, match=r"config\.json was changed"):
        resume(run)


@pytest.mark.parametrize("counts_all_settings", [False, True])
def test_run_of_a_version_with_fewer_settings_is_resumed(run, counts_all_settings):
    """As written before `ema.statistics_samples` was added, whose default changes nothing."""
    content = json.loads(run.config.read_bytes())
    del content["sha256"], content["config"]["ema"]["statistics_samples"]
    run.config.write_text(json.dumps({**content, "sha256": json_sha256(content)}))
    if counts_all_settings:
        settings = experiment_settings(read_config(run))
        del settings["ema.statistics_samples"]
        tensors, metadata, _ = load_latest_checkpoint(run.checkpoints)
        save_checkpoint(run.checkpoints, tensors, replace(metadata, config_sha256=json_sha256(settings)), {})
    assert resume(run).images_seen == 48


def test_removed_setting_that_matters_is_noticed(run):
    content = json.loads(run.config.read_bytes())
    del content["sha256"], content["config"]["generator"]["width"]
    run.config.write_text(json.dumps({**content, "sha256": json_sha256(content)}))
    with pytest.raises(CardiganError, match=r"config\.json was changed"):
        resume(run)


def test_changed_source_fingerprint_is_noticed(run):
    values = json.loads(run.source.read_bytes())
    run.source.write_text(json.dumps(values | {"num_images": values["num_images"] + 1}))
    with pytest.raises(CardiganError, match=r"source\.json was changed"):
        resume(run)


@pytest.mark.parametrize(
    "change", [{"images_seen": 40}, {"images_seen": -400}, {"learning_rate_factor": 0.5}, {"score": 0.1}]
)
def test_changed_state_is_damaged(run, change):
    state = run.checkpoints / "00000032" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_bytes()) | change))
    with pytest.raises(CardiganError, match="damaged, or was changed by hand"):
        read_checkpoint_metadata(state.parent)
    _, metadata, messages = load_latest_checkpoint(run.checkpoints)
    assert metadata.images_seen == 16 and "Using the previous one" in messages[0]


def test_run_without_intact_checkpoint_is_not_started_again(run):
    for path in run.checkpoints.iterdir():
        (path / "state.json").write_text("{}")
    with pytest.raises(CardiganError, match=r"No checkpoint in .* is intact"):
        resume(run)


def test_unchanged_run_is_resumed(run):
    assert resume(run).images_seen == 48


def test_rollback_keeps_checksums_valid(tmp_path):
    path = save_checkpoint(tmp_path, {"x": torch.zeros(1)}, CheckpointMetadata(64, 1.0, 2.0, 1.0, "a", "b"), {})
    rollback_to(path, 0.5)
    metadata, _ = read_checkpoint_metadata(path)
    assert metadata == CheckpointMetadata(64, 1.0, 2.0, 0.5, "a", "b")
