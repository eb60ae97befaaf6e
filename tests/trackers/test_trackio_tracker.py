"""Trackio's local store, read back by Trackio."""

import pytest

from tracked_runs import FIRST_EVENTS, LATER_EVENTS, SCALARS, add_events, python, track, tracked_run

pytest.importorskip("trackio", reason="pip install 'cardigan[trackio]'")

READ = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
runs = {run.name: run for run in trackio.Api().runs("digits")}
found = {
    name: {
        "logs": SQLiteStorage.get_logs("digits", name, run_id=run.id),
        "config": run.config,
        "alerts": [[each["title"], each["text"], each["level"], each["step"]] for each in run.alerts()],
    }
    for name, run in runs.items()
}
print(json.dumps(found))
"""


def test_run_is_sent_once_and_a_resumed_run_continues_its_line(tmp_path):
    place = {"TRACKIO_DIR": str(tmp_path / "store")}
    words = ("--track-project", "digits")
    run = tracked_run(tmp_path / "run", *FIRST_EVENTS)
    namesake = tracked_run(tmp_path / "other" / "run", *FIRST_EVENTS[:3])
    assert "trackio show --project digits" in track(run, "trackio", *words, **place)
    track(namesake, "trackio", *words, **place)
    add_events(run, *LATER_EVENTS)
    track(run, "trackio", *words, **place)
    found = python(READ, tmp_path, **place)
    assert set(found) == {"run", "run-2"}
    for name, points in SCALARS.items():
        assert [(row["step"], row[name]) for row in found["run"]["logs"] if name in row] == points
    assert found["run"]["config"]["generator.width"] == 8
    (sheet,) = (row["samples"] for row in found["run"]["logs"] if "samples" in row)
    assert sheet["caption"] == "generated (left), real (right)"
    (image,) = (tmp_path / "store").rglob("run/**/*.png")
    assert image.read_bytes() == (run / "samples" / "00000032.png").read_bytes()
    assert ["plateau", "no progress. Stop it.", "warn", 64] in found["run"]["alerts"]
    weights = (run / "generator.safetensors").read_bytes()
    assert weights in [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
