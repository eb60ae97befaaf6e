"""Weights & Biases, offline: its own files, read back by its own reader."""

import json

import pytest

from tracked_runs import FIRST_EVENTS, LATER_EVENTS, SCALARS, add_events, command, python, track, tracked_run

pytest.importorskip("wandb", reason="pip install 'cardigan[wandb]'")

OFFLINE = {"WANDB_MODE": "offline"}
READ = """
import json, struct
from pathlib import Path
from wandb.proto import wandb_internal_pb2

def records(content):
    position, parts = 7, b""  # after the file's header; then blocks of 32 KiB, as LevelDB writes its log
    while position < len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in {1, 4}:  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record

def values(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

found = {"rows": [], "config": {}, "alerts": [], "runs": [], "files": [], "exits": []}
for path in sorted(Path("wandb").glob("offline-run-*/*.wandb"), key=lambda each: each.stat().st_mtime_ns):
    for record in records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            found["rows"].append(values(record.history.item))
        elif kind == "config":
            found["config"].update(values(record.config.update))
        elif kind == "run":
            found["config"].update(values(record.run.config.update))
            found["runs"].append([record.run.run_id, record.run.project, record.run.display_name])
        elif kind == "alert":
            found["alerts"].append([record.alert.title, record.alert.text, record.alert.level])
        elif kind == "artifact":
            found["files"].append([record.artifact.type, [each.path for each in record.artifact.manifest.contents]])
        elif kind == "exit":
            found["exits"].append(record.exit.exit_code)
print(json.dumps(found))
"""


def test_run_is_sent_once_and_a_resumed_run_continues_its_line(tmp_path):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    assert "wandb sync" in track(run, "wandb", "--track-project", "digits", **OFFLINE)
    add_events(run, *LATER_EVENTS)
    track(run, "wandb", "--track-project", "digits", **OFFLINE)
    found = python(READ, tmp_path)
    for name, points in SCALARS.items():
        rows = [row for row in found["rows"] if name in row]
        assert [(row["images_seen"], row[name]) for row in rows] == points
    assert len({run_id for run_id, _, _ in found["runs"]}) == 1
    assert {(project, name) for _, project, name in found["runs"]} == {("digits", "run")}
    assert found["config"]["generator.width"] == 8
    (caption,) = (row["samples.caption"] for row in found["rows"] if "samples.caption" in row)
    assert caption == "generated (left), real (right)"
    assert [row["_step"] for row in found["rows"]] == list(range(1, 1 + len(FIRST_EVENTS) + len(LATER_EVENTS)))
    (image,) = tmp_path.glob("wandb/offline-run-*/files/media/images/*.png")
    assert image.read_bytes() == (run / "samples" / "00000032.png").read_bytes()
    assert found["alerts"] == [["plateau", "plateau: no progress. Stop it. (64 images)", "WARN"]]
    assert found["files"][-1] == ["model", ["generator.safetensors"]]
    assert found["exits"] == [1, 0]


def test_no_login_is_one_sentence_and_never_a_question(tmp_path):
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    words = ["-m", "cardigan", "track", str(run), "--to", "wandb"]
    done = command(*words, folder=tmp_path, HOME=str(tmp_path), WANDB_MODE="online", WANDB_API_KEY="")
    assert done.returncode == 2 and "run `wandb login`, or set WANDB_MODE=offline" in done.stderr
    assert not json.loads((run / "config.json").read_text()).get("wandb") and not list(tmp_path.glob("wandb/*run-*"))
