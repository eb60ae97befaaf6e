"""The leaderboard: checked results, the fastest first, one that fell short last; rivals by their best steps."""

import json
import sys
import xml.dom.minidom

import pytest

import leaderboard
from cardigan.bench.record import make_record
from cardigan.errors import CardiganError

MACHINE = {"cpu": "a CPU", "num_threads": 2, "calibration": {"fp32_gflops": 90.0}}


def record(recipe, seconds, reached=True):
    seed = {
        **{"seed": 0, "reached": reached, "seconds": seconds, "cpu_seconds": 2 * seconds, "images": 1_000},
        **{"peak_megabytes": 500, "seconds_per_1000_samples": 0.5},
        "curve": [[0, 3.0, 900.0], [500, seconds / 2, 20.0], [1_000, seconds, 4.0]],
    }
    facts = {"rung": "digits", "recipe": recipe, "limit_minutes": 15, "date": "2026-11-30", "machine": MACHINE}
    return make_record(facts, [seed])


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    for number, each in enumerate([record("slow", 200.0), record("short", 900.0, False), record("fast", 100.0)]):
        (folder / f"bench-{number}.json").write_text(json.dumps(each))
    rows = [
        {"set": "icons", "rival": "flow", "minutes": 5.0, "seed": 0, "steps": steps, "score": score,
         "samples_per_second": rate}
        for steps, score, rate in ((1, 900.0, 50.0), (18, 400.0, 3.0))
    ]  # fmt: skip
    (folder / "rivals-icons.json").write_text(json.dumps(rows))
    (tmp_path / "docs" / "images").mkdir(parents=True)
    words = ["leaderboard.py", "--results", str(folder), "--out", str(tmp_path / "docs" / "leaderboard.md")]
    monkeypatch.setattr(sys, "argv", words)
    return folder


def test_page_has_every_result_and_a_chart(results, tmp_path):
    leaderboard.main()
    page = (tmp_path / "docs" / "leaderboard.md").read_text()
    digits = page.split("## digits")[1].split("## ")[0]
    assert digits.index("| fast |") < digits.index("| slow |") < digits.index("| short |")
    assert "not in 15 minutes (0 of 1 seeds)" in digits and "100 (100-100) (1 of 1 seeds)" in digits
    assert "No result yet." in page.split("## stacked")[1]
    assert "| icons | flow | 5 | 400.0 | 18, 3.0 |" in page
    xml.dom.minidom.parseString((tmp_path / "docs" / "images" / "leaderboard-digits.svg").read_text())


def test_changed_result_is_refused(results):
    path = results / "bench-0.json"
    path.write_text(path.read_text().replace("200.0", "20.0"))
    with pytest.raises(CardiganError, match="was changed after it was written"):
        leaderboard.main()
