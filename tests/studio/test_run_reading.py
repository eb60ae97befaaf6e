"""Reading of runs: incremental, equal to `read_events`, and robust against malformed and hostile files."""

import csv
import io
import json
import os
import random
import threading
import time
import tracemalloc

import numpy as np
import pytest
from fake_runs import client_for, journal_line, make_run, progress_line

from cardigan.config import Config
from cardigan.config_parts import DataConfig, ObjectiveConfig
from cardigan.errors import CardiganError
from cardigan.run.directory import RunDirectory, is_locked, lock_for_training, release_lock
from cardigan.run.journal import read_events
from cardigan.studio import nearest
from cardigan.studio.curves import curves
from cardigan.studio.journal_tail import MAX_LINE_BYTES
from cardigan.studio.run_series import MAX_SERIES, RunSeries
from cardigan.studio.run_summary import RunSummary

MALFORMED = [
    b"{\n",
    b"[1, 2]\n",
    b"\xff\xfe\x00\n",
    b"\n",
    b'{"kind": "progress"}\n',
    b'{"kind": "progress", "images_seen": "many", "elapsed_seconds": 1}\n',
    b'{"kind": "progress", "images_seen": NaN, "elapsed_seconds": 1}\n',
    b"[" * 100_000 + b"\n",
]


def random_lines(rng, count):
    images_seen, lines = 0, []
    for _ in range(count):
        images_seen += rng.randrange(0, 100)
        kind = rng.choice(["progress"] * 6 + ["rollback", "resume", "fault", "checkpoint", "samples"])
        if kind in {"rollback", "resume"}:
            images_seen = rng.randrange(0, images_seen + 1)
        values = {name: rng.random() for name in rng.sample("abcde", 3)}
        lines.append(journal_line(kind, images_seen, **values))
        if rng.random() < 0.1:
            lines.append(rng.choice(MALFORMED[:-1]))
    return lines


@pytest.mark.parametrize("seed", range(5))
def test_incremental_reading_equals_read_events(tmp_path, seed):
    rng = random.Random(seed)
    path, content = tmp_path / "journal.jsonl", b"".join(random_lines(rng, 300))
    run_series, run_summary, position = RunSeries(path), RunSummary(path), 0
    while position < len(content):  # steps also end within lines
        step = rng.randrange(1, 5_000)
        with path.open("ab") as file:
            file.write(content[position : position + step])
        position += step
        run_series.update()
        run_summary.update()
    expected = [event for event in read_events(path) if event.kind == "progress"]
    assert list(run_series.images_seen) == [event.images_seen for event in expected]
    for name, column in run_series.series.items():
        assert np.array_equal(np.array(column), [event.values.get(name, np.nan) for event in expected], equal_nan=True)
    others = [event for event in read_events(path) if event.kind != "progress"]
    assert [(event.kind, event.images_seen) for event in run_series.other_events] == [
        (event.kind, event.images_seen) for event in others
    ]
    faults = [event.images_seen for event in others if event.kind == "fault"]
    assert [fault.images_seen for fault in run_summary.faults] == faults
    assert run_summary.last_event.images_seen == read_events(path)[-1].images_seen


@pytest.mark.parametrize("broken", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_line_is_skipped(tmp_path, broken):
    make_run(tmp_path / "run", [progress_line(64), broken, progress_line(128)])
    with client_for(tmp_path) as client:
        assert client.get("/api/curves?run=run").json()["images_seen"] == [64, 128]
        assert client.get("/api/run?run=run").json()["images_seen"] == 128


def test_long_line_uses_bounded_memory(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(progress_line(64) + b'{"kind": "' + b"x" * (32 * MAX_LINE_BYTES))
    run_series = RunSeries(path)
    tracemalloc.start()
    try:
        run_series.update()
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_LINE_BYTES
    finally:
        tracemalloc.stop()
    with path.open("ab") as file:
        file.write(b"\n" + progress_line(128))
    run_series.update()
    assert list(run_series.images_seen) == [64, 128]


def test_many_names_use_bounded_memory(tmp_path):
    make_run(tmp_path / "run", [progress_line(64, **{f"n{number}": 1.0 for number in range(1_000)})])
    run_series = RunSeries(tmp_path / "run" / "journal.jsonl")
    run_series.update()
    assert len(run_series.series) == MAX_SERIES


def test_non_numeric_values_are_dropped(tmp_path):
    odd = (
        b'{"kind": "progress", "images_seen": 1, "elapsed_seconds": 1, "a": NaN, "b": Infinity, "c": true, "d": 1'
        + b"0" * 400
        + b', "e": 2}\n'
    )
    make_run(tmp_path / "run", [odd])
    with client_for(tmp_path) as client:
        assert set(client.get("/api/curves?run=run").json()["series"]) == {"e"}


def test_replaced_journal_is_reread(tmp_path):
    path = make_run(tmp_path / "run", [progress_line(64), progress_line(128)]) / "journal.jsonl"
    run_series = RunSeries(path)
    run_series.update()
    path.write_bytes(progress_line(32))
    run_series.update()
    assert list(run_series.images_seen) == [32]


def test_downsampling_keeps_extremes(tmp_path):
    path, values = tmp_path / "journal.jsonl", np.random.default_rng(0).normal(size=1_000)
    path.write_bytes(b"".join(progress_line(100 * position, a=float(value)) for position, value in enumerate(values)))
    run_series = RunSeries(path)
    run_series.update()
    found = curves(run_series, 10)
    parts = np.minimum(np.arange(1_000) * 100 * 10 / 99_900, 9).astype(int)
    series = found["series"]["a"]
    assert found["is_downsampled"]
    assert found["num_readings"] == 1_000
    assert series["low"] == [values[parts == part].min() for part in range(10)]
    assert series["high"] == [values[parts == part].max() for part in range(10)]
    assert series["mean"] == pytest.approx([values[parts == part].mean() for part in range(10)], rel=1e-5)
    assert found["images_seen"] == pytest.approx([100 * np.flatnonzero(parts == part).mean() for part in range(10)])
    whole = curves(run_series, 1_000)
    assert not whole["is_downsampled"]
    assert whole["series"]["a"]["mean"] == values.tolist()
    assert curves(run_series, 1_000, 5_000.0, 6_000.0)["images_seen"] == list(range(5_000, 6_001, 100))


def test_missing_values_are_null(tmp_path):
    make_run(
        tmp_path / "run",
        [progress_line(64, a=1.0), progress_line(128), progress_line(192, a=3.0), progress_line(256, a=4.0)],
    )
    with client_for(tmp_path) as client:
        assert client.get("/api/curves?run=run").json()["series"]["a"]["mean"] == [1, None, 3, 4]
        rows = list(csv.reader(io.StringIO(client.get("/api/curves.csv?run=run").text)))
    assert rows[0] == ["images_seen", "elapsed_seconds", "images_per_second", "discriminator_loss", "a"]
    assert [row[4] for row in rows[1:]] == ["1.0", "", "3.0", "4.0"]


def test_run_is_training_while_locked(tmp_path):
    run, config = RunDirectory(tmp_path / "run"), Config()
    lock = lock_for_training(run, config, {}, resume=False)
    run.journal.write_bytes(progress_line(64))
    with client_for(tmp_path) as client:
        assert client.get("/api/run?run=run").json()["state"] == "training"
        run.journal.write_bytes(progress_line(64) + journal_line("stop", 64, reason="images"))
        assert client.get("/api/run?run=run").json()["state"] == "finished"  # it still writes its report
        run.journal.write_bytes(progress_line(64))
        release_lock(lock)
        assert client.get("/api/run?run=run").json()["state"] == "interrupted"  # no stop event
        again = lock_for_training(run, config, {}, resume=True)  # reading must not take the lock
        assert is_locked(run)
        release_lock(again)


COPIES = journal_line("fault", 64, name="copies", fatal=False)
MODE_COLLAPSE = journal_line("fault", 64, name="mode collapse", fatal=True)


@pytest.mark.parametrize(("lines", "state", "health"), [
    ([], "waiting", "too_early"),
    ([progress_line(64), journal_line("stop", 64, reason="images")], "finished", "too_early"),
    ([progress_line(64_000, diversity=0.9), journal_line("stop", 64_000, reason="minutes")], "finished",
     "nothing_found"),
    ([COPIES, journal_line("stop", 64, reason="SIGINT")], "stopped", "warning"),
    ([MODE_COLLAPSE, journal_line("stop", 64, reason="failure")], "stopped", "fatal"),
    ([MODE_COLLAPSE, journal_line("rollback", 32), journal_line("stop", 40, reason="images")], "finished",
     "too_early"),
    ([journal_line("stop", 64, reason="images"), journal_line("resume", 64), progress_line(128)], "interrupted",
     "too_early"),
])  # fmt: skip
def test_run_states(tmp_path, lines, state, health):
    make_run(tmp_path / "run", lines)
    with client_for(tmp_path) as client:
        (found,) = client.get("/api/runs").json()["runs"]
    assert (found["state"], found["health"]) == (state, health)


def test_killed_run_says_how_to_continue(tmp_path):
    """It was killed before its second checkpoint; the score of its untrained network is not a best one."""
    lines = [journal_line("checkpoint", 0, score=915.0), progress_line(640, holdout_gap=0.2), progress_line(1920)]
    path = make_run(tmp_path / "run", lines)
    (path / "checkpoints" / "00000000").mkdir()
    (path / "checkpoints" / "00000000" / "state.safetensors").touch()
    content = json.loads((path / "config.json").read_bytes())
    content["provenance"]["command"] = ["cardigan", "train", "mnist", "--images", "960", "--seed", "3"]
    (path / "config.json").write_text(json.dumps(content))
    with client_for(tmp_path) as client:
        run = client.get("/api/run?run=run").json()
    assert (run["images_seen"], run["best_score"], run["latest_score"]) == (1920, None, 915.0)
    assert run["checkpoints"] == [{"images_seen": 0, "score": 915.0, "best": False}]
    assert run["state_sentence"].startswith("Interrupted: the process was killed")
    assert run["resume_command"] == f"cardigan train mnist --seed 3 --out {path} --resume"
    assert run["health_sentence"] == "Too early to say after 1,920 images: known from 20,000 images on."


def test_run_discovery(tmp_path):
    for name in ("a", "b/c", "b/d/e", "b/d/f/too-deep"):
        make_run(tmp_path / name, [progress_line(64)])
    (tmp_path / "images").mkdir()
    make_run(tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{")
    with client_for(tmp_path) as client:
        found = {run["id"]: run for run in client.get("/api/runs").json()["runs"]}
        assert set(found) == {"a", "b/c", "b/d/e", "broken"}
        assert found["broken"]["state"] == "unreadable"
        assert "damaged" in found["broken"]["error"]
        assert client.get("/api/run", params={"run": "b/d/e"}).json()["name"] == "e"
    with client_for(tmp_path / "a") as client:
        assert [run["id"] for run in client.get("/api/runs").json()["runs"]] == ["."]
        assert client.get("/api/run?run=.").json()["name"] == "a"


ENDLESS = f'{{"minutes": 1{"0" * 400}}}'
"""A setting that overflows a float."""
HOSTILE = [
    "[" * 100_000,
    "x" * (2 << 20),
    '{"config": {"batch_size": 1e999}}',
    f'{{"config": {ENDLESS}}}',
    '{"config": {"latent": 3}}',
    "null",
]


@pytest.mark.parametrize("config", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_config_is_unreadable(tmp_path, config):
    make_run(tmp_path / "good", [progress_line(64)])
    make_run(tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_text(config)
    with client_for(tmp_path) as client:
        states = {run["id"]: run["state"] for run in client.get("/api/runs").json()["runs"]}
        assert states == {"good": "interrupted", "bad": "unreadable"}
        assert client.get("/api/run?run=bad").status_code == 409


@pytest.mark.parametrize(("facts", "state"), [
    ('{"config": {}, "num_classes": 0, "images_seen": 1e999}', "unreadable"),
    (f'{{"config": {ENDLESS}, "num_classes": 0, "images_seen": 1}}', "unreadable"),
    ('{"config": {"conditional": true}, "num_classes": 1e999, "images_seen": 1}', "model_file"),
], ids=["images", "config", "classes"])  # fmt: skip
def test_hostile_header_is_unreadable(tmp_path, facts, state):
    make_run(tmp_path / "good", [progress_line(64)])
    header = json.dumps({"__metadata__": {"cardigan": facts}}).encode()
    (tmp_path / "bad.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with client_for(tmp_path) as client:
        assert {run["id"]: run["state"] for run in client.get("/api/runs").json()["runs"]} == {
            "good": "interrupted",
            "bad.safetensors": state,
        }
        assert client.get("/api/run?run=bad.safetensors").status_code in {200, 409}


def test_logit_histograms(tmp_path):
    events = [
        journal_line(
            "samples",
            64 * part,
            num_samples=4,
            real_logits=[1.0, 2.0, 3.0, 4.0],
            fake_logits=[-1.0, -2.0, -3.0, float(part)],
        )
        for part in (1, 2)
    ]
    make_run(tmp_path / "run", [journal_line("samples", 0, num_samples=4), *events], sheets=(0, 64, 128))
    with client_for(tmp_path) as client:
        found = client.get("/api/logits?run=run").json()
        assert [entry["images_seen"] for entry in found["history"]] == [64, 128]
        assert [sum(entry["fake"]) for entry in found["history"]] == [4, 4]
        assert found["history"][1]["fake_mean"] == -1.0
        assert len(found["edges"]) == len(found["history"][0]["real"]) + 1
        assert client.get("/api/logits?run=run&images_seen=128").json() == {
            "fake": [-1, -2, -3, 2],
            "real": [1, 2, 3, 4],
        }
        assert client.get("/api/logits?run=run&images_seen=0").status_code == 404


def test_source_that_blocks_is_not_opened(tmp_path, monkeypatch):
    """A run's config may name a pipe, a device or a slow disk: only files and folders are opened, and not for long."""
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "images").mkdir()
    for source in (tmp_path / "pipe.zip", "/dev/tty"):
        assert not nearest.has_training_images(DataConfig(source=str(source)))
    opened = threading.Event()

    def slow_reader(data):
        opened.wait(60)
        raise CardiganError("not readable")

    monkeypatch.setattr(nearest, "reader_from_config", slow_reader)
    monkeypatch.setattr(nearest, "OPEN_SECONDS", 0.2)
    started = time.monotonic()
    for _ in range(2):  # the second call finds the first still waiting
        assert not nearest.has_training_images(DataConfig(source=str(tmp_path / "images")))
    assert time.monotonic() - started < 10
    opened.set()


def test_npz_bomb_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(nearest, "MAX_UNPACKED_BYTES", 100_000)
    opened = []
    monkeypatch.setattr(nearest, "reader_from_config", lambda data: opened.append(data.source) or refuse())

    def refuse():
        raise CardiganError("not readable")

    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((100, 50, 50), np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (100, 50, 50), np.uint8)
    np.savez_compressed(tmp_path / "noise.npz", images=noise)
    (tmp_path / "broken.npz").write_bytes(b"PK")
    for name in ("bomb.npz", "noise.npz", "broken.npz"):
        assert not nearest.has_training_images(DataConfig(source=str(tmp_path / name)))
    assert opened == [str(tmp_path / "noise.npz"), str(tmp_path / "broken.npz")]


def test_csv_cells_are_not_formulas(tmp_path):
    name = '=HYPERLINK("https://example.org")'
    make_run(tmp_path / "run", [progress_line(64, **{name: -1.0, "plain": -2.0})])
    with client_for(tmp_path) as client:
        header, row = csv.reader(io.StringIO(client.get("/api/curves.csv?run=run").text))
    assert f"'{name}" in header and name not in header and "plain" in header
    assert row[header.index("plain")] == "-2.0"


@pytest.mark.parametrize(("loss", "boundary"), [("hinge", 0), ("least-squares", 0.5), ("no-such-plugin", None)])
def test_logits_follow_the_loss(tmp_path, loss, boundary):
    """Only a loss with a decision boundary classifies images; the logits of others are relative to their midpoint."""
    real, fake = [100.0, 102.0, 104.0, 106.0], [99.0, 100.0, 103.0, 90.0]
    line = journal_line("samples", 64, num_samples=4, real_logits=real, fake_logits=fake)
    config = Config(objective=ObjectiveConfig(loss=loss))
    make_run(tmp_path / "run", [line], sheets=(64,), config=config)
    with client_for(tmp_path) as client:
        found = client.get("/api/logits?run=run").json()
    (entry,) = found["history"]
    assert found["decision_boundary"] == boundary
    assert entry["real_above_fake"] == (2.5 + 3 + 4 + 4) / 16  # a tie is half a pair
    if boundary is None:
        assert entry["real_classified_real"] is entry["fake_classified_real"] is None
        assert entry["real_mean"] == -entry["fake_mean"] == 2.5
        assert found["edges"][0] < 0 < found["edges"][-1]
    else:
        assert entry["real_classified_real"] == entry["fake_classified_real"] == 1
        assert entry["real_mean"] == 103


def test_run_deleted_while_open(tmp_path):
    import shutil

    make_run(tmp_path / "run", [progress_line(64)], sheets=(0,))
    with client_for(tmp_path) as client:
        assert client.get("/api/sample-sheet?run=run&images_seen=0").status_code == 200
        shutil.rmtree(tmp_path / "run")
        for address in (
            "run",
            "curves",
            "curves.csv",
            "events",
            "tile-history",
            "logits",
            "discriminator",
            "latent",
            "interpolation.png",
            "reproduce?view=interpolation&x=1",
        ):
            answer = client.get(f"/api/{address}{'&' if '?' in address else '?'}run=run")
            assert answer.status_code == 404, address
            assert "no run" in answer.json()["error"]
        assert client.get("/api/sample-sheet?run=run&images_seen=0").status_code == 404
        assert client.get("/api/runs").json()["runs"] == []


def test_tile_history(tmp_path):
    from PIL import Image

    lines = [journal_line("samples", images_seen, num_samples=4) for images_seen in (1, 2, 3)]
    make_run(tmp_path / "run", lines, sheets=(1, 2, 3))
    with client_for(tmp_path) as client:
        answer = client.get("/api/tile-history?run=run&tile=2")
        assert np.asarray(Image.open(io.BytesIO(answer.content)))[5, 5::34].tolist() == [21, 22, 23]
        assert client.get("/api/tile-history?run=run&tile=4").status_code == 409
        assert client.get("/api/sample-sheet?run=run&images_seen=4").status_code == 404
        assert client.get("/api/sample-sheet?run=run&images_seen=x").status_code == 400
        (tmp_path / "run" / "samples" / "00000002.png").write_bytes(b"no image")
        assert "damaged" in client.get("/api/tile-history?run=run&tile=2").json()["error"]


def test_outside_symlinks_are_not_runs(tmp_path):
    make_run(tmp_path / "elsewhere", [progress_line(64)], sheets=(0,))
    inside = tmp_path / "runs"
    make_run(inside / "own", [progress_line(64)], sheets=(0,))
    (inside / "linked").symlink_to(tmp_path / "elsewhere")
    (inside / "own" / "samples" / "00000005.png").symlink_to(tmp_path / "elsewhere" / "samples" / "00000000.png")
    with client_for(inside) as client:
        assert [run["id"] for run in client.get("/api/runs").json()["runs"]] == ["own"]
        assert client.get("/api/run?run=linked").status_code == 404
        assert client.get("/api/sample-sheet?run=own&images_seen=0").status_code == 200
        assert client.get("/api/sample-sheet?run=own&images_seen=5").status_code == 404
        for address in (
            "../elsewhere",
            "own/../../elsewhere",
            str(tmp_path / "elsewhere"),
            "own/../own",
            "",
            "%00",
            "own\x00",
        ):
            answer = client.get("/api/run", params={"run": address})
            assert answer.status_code == 404, address
            assert json.loads(answer.content)["error"]
