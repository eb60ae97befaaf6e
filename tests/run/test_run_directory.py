"""The run directory: which checkpoints are kept, who may write, and hostile headers."""

import json
import struct

import pytest
import torch

import cardigan
from cardigan.errors import CardiganError
from cardigan.experiment import session
from cardigan.run.checkpoint import (
    CheckpointMetadata,
    best_checkpoint,
    list_checkpoints,
    prune_checkpoints,
    save_checkpoint,
)
from cardigan.run.directory import CONFIG_FORMAT, RunDirectory, latest_run, lock_for_training, read_config, reserve_run
from cardigan.run.journal import REWIND_KINDS, Event, Journal, read_events, rewind


def test_prune_keeps_last_three_and_best(tmp_path):
    for images_seen, score in enumerate((9.0, 2.0, None, 5.0, 6.0, 7.0, None)):
        save_checkpoint(tmp_path, {"x": torch.zeros(1)}, CheckpointMetadata(images_seen, 0.0, score), {})
        prune_checkpoints(tmp_path)
    assert [int(path.name) for path in list_checkpoints(tmp_path)] == [1, 4, 5, 6]
    assert best_checkpoint(tmp_path).name == "00000001"


def test_run_lock(tmp_path):
    run, config = RunDirectory(tmp_path / "run"), cardigan.config_for("mnist")
    lock_for_training(run, config, {}, resume=False)
    with pytest.raises(CardiganError, match="trained by another process"):
        lock_for_training(run, config, {}, resume=True)


def test_run_names_of_one_second_differ(tmp_path):
    runs = tmp_path / "deep" / "runs"
    with reserve_run(runs, "gan") as first, reserve_run(runs, "gan") as second:
        assert first.path != second.path
        assert first.path.is_dir()
        second.config.touch()
    assert list(runs.iterdir()) == [second.path]
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, message in (("file", "Cannot write"), ("dangling", "choose another folder")):
        with pytest.raises(CardiganError, match=message), reserve_run(tmp_path / name, "gan"):
            pass


def test_trainings_of_one_second_get_different_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = cardigan.config_for("mnist")
    with (
        session._run_directory(config, None, resume=False) as first,
        session._run_directory(config, None, resume=False) as second,
    ):
        assert first.path.is_dir() and second.path.is_dir() and first.path != second.path
        monkeypatch.setenv("RANK", "1")
        with session._run_directory(config, None, resume=False) as worker_run:
            assert not worker_run.path.exists()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("RANK")
    with pytest.raises(CardiganError, match="depth is 9"):
        cardigan.train("mnist", overrides={"generator.depth": 9})
    assert list(tmp_path.iterdir()) == []


def test_latest_run_matches_name_exactly(tmp_path):
    for name in ("20260101-000000-mnist", "20260102-000000-mnist-2", "20260103-000000-mnist-conditional"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    assert latest_run(tmp_path, "mnist").path.name == "20260102-000000-mnist-2"
    with pytest.raises(CardiganError, match="no run of 'tutorial'"):
        latest_run(tmp_path, "tutorial")


def test_journal_drops_incomplete_and_undone_lines(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for images_seen in (0, 64, 128):
        journal.append(Event("progress", images_seen, 1.0, {}))
    path.write_bytes(path.read_bytes() + b'{"kind": "prog')
    journal = Journal(path)
    journal.append(Event("resume", 64, 2.0, {}))
    journal.append(Event("progress", 128, 3.0, {"new": 1}))
    assert [(event.kind, event.images_seen) for event in read_events(path)] == [
        ("progress", 0),
        ("progress", 64),
        ("resume", 64),
        ("progress", 128),
    ]


@pytest.mark.parametrize("kind", ["progress", "checkpoint", "fault", "stop", *sorted(REWIND_KINDS)])
def test_rewind_undoes_later_entries(kind):
    entries = [("a", 0), ("b", 64), ("c", 65), ("d", 10)]  # the last as in a damaged journal
    kept = rewind(entries, Event(kind, 64, 1.0, {}), lambda entry: entry[1])
    assert kept == ([entries[0], entries[1], entries[3]] if kind in {"resume", "rollback"} else entries)


@pytest.mark.parametrize(
    ("provenance", "named"),
    [
        ({"cardigan_version": "0.1.0", "commit": "1a2b3c"}, "use version 0.1.0, commit 1a2b3c, which trained it, or"),
        ({"cardigan_version": "0.1.0", "commit": None}, "use version 0.1.0, which trained it, or train again"),
        ({}, "use the version that trained it, or train again"),
        (7, "use the version that trained it, or train again"),
    ],
)
def test_run_of_another_version_names_it(tmp_path, provenance, named):
    run = RunDirectory(tmp_path)
    run.config.write_text(json.dumps({"format": 1, "config": {}, "provenance": provenance}))
    with pytest.raises(CardiganError, match=f"format 1, this version reads {CONFIG_FORMAT}.*{named}"):
        read_config(run)


def test_unwritable_path_error_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CardiganError, match="Cannot write"):
        cardigan.train("mnist", out=tmp_path / "file" / "run", images=16)


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    small = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu"}
    return (
        cardigan.train("mnist", out=tmp_path_factory.mktemp("runs") / "run", images=16, overrides=small).path
        / "generator.safetensors"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata.pop("config"),
        lambda metadata: metadata.update(format=99),
        lambda metadata: metadata.update(num_classes="many"),
        lambda metadata: metadata.update(num_classes=-200),
        lambda metadata: metadata.update(images_seen=None),
        lambda metadata: metadata.update(config=[]),
        lambda metadata: metadata["config"]["generator"].update(width=10**9),
        lambda metadata: metadata["config"]["generator"].update(width=10**18),
        lambda metadata: metadata["config"]["generator"].update(width=64),
        lambda metadata: metadata["config"]["data"].update(height=10**6, width=10**6),
        lambda metadata: metadata["config"]["latent"].update(size=2**62),
        lambda metadata: metadata["config"]["generator"].update(network="os.system"),
    ],
)
def test_hostile_header_raises(generator, tmp_path, change):
    content = generator.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["cardigan"])
    change(metadata)
    header["__metadata__"]["cardigan"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    (tmp_path / "hostile.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(CardiganError):
        cardigan.load(tmp_path / "hostile.safetensors")


def test_truncated_file_raises(generator, tmp_path):
    content = generator.read_bytes()
    for size in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.safetensors").write_bytes(content[:size])
        with pytest.raises(CardiganError):
            cardigan.load(tmp_path / "cut.safetensors")
