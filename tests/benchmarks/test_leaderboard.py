"""The leaderboard: checked results, the fastest first, one that fell short last; rivals by their best steps."""

import json
import sys
import xml.dom.minidom

import pytest

import leaderboard
from cardigan.bench.record import FORMAT, make_record, seal
from cardigan.errors import CardiganError

MACHINE = {"cpu": "a CPU", "num_threads": 2, "calibration": {"fp32_gflops": 90.0}}


def record(recipe, seconds, reached=True, **more):
    seed = {
        **{"seed": 0, "reached": reached, "seconds": seconds, "cpu_seconds": 2 * seconds, "images": 1_000},
        **{"peak_megabytes": 500, "seconds_per_1000_samples": 0.5, "generator_megabytes": 1.5},
        "curve": [[0, 3.0, 900.0], [500, seconds / 2, 20.0], [1_000, seconds, 4.0]],
    }
    facts = {"rung": "digits", "target": 5.0, "recipe": recipe, "limit_minutes": 15, "date": "2026-11-30"}
    return make_record({**facts, "machine": MACHINE, **more}, [seed])


def rival_row(rival, steps, distance, seed=0):
    return {
        **{"set": "icons", "rival": rival, "minutes": 5.0, "seed": seed, "steps": steps, "images": 20_000},
        **{"fd_efficientnet_lite2": distance, "kd_efficientnet_lite2": 0.25, "recall": 0.5, "authenticity": 1.0},
        **{"duplicate_rate": 0.0, "samples_per_second": 3.04, "weights": 1_300_000},
        **{"batch": 16, "swd_64": 20.0, "swd_32": 10.0},
    }


RIVALS = {
    "flow": [rival_row("flow", 1, 900.0), rival_row("flow", 18, 400.0), rival_row("flow", 18, 420.0, seed=1)],
    "dcgan": [rival_row("dcgan", 1, 210.0)],
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    for number, each in enumerate([record("slow", 200.0), record("short", 900.0, False), record("fast", 100.0)]):
        (folder / f"bench-{number}.json").write_text(json.dumps(each))
    for rival, rows in RIVALS.items():
        machine = {"cpu": "some CPU", "num_threads": 1, "calibration": {"bf16_gflops": 207.0}}
        facts = {"format": FORMAT, "set": "icons", "date": "2026-12-01", "machine": machine}
        sealed = seal({**facts, "command": f"compare {rival}", "rows": rows})
        (folder / f"rivals-icons-{rival}-0.json").write_text(json.dumps(sealed))
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
    rivals = page.split("### icons")[1]
    assert "| 5 | flow | 16 | 18 | 410 (400-420) | 0.25 | 15 | 0.5 | 1 | 0 | 3.04 | 1,300,000 | 20,000 |" in rivals
    assert "- `compare flow`: some CPU, 1 thread, 2026-12-01 (207 bf16 gflops)" in rivals
    assert rivals.index("| 5 | dcgan |") < rivals.index("| 5 | flow |") and "900" not in rivals
    xml.dom.minidom.parseString((tmp_path / "docs" / "images" / "leaderboard-digits.svg").read_text())


def test_changed_result_is_refused(results):
    path = results / "bench-0.json"
    path.write_text(path.read_text().replace("200.0", "20.0"))
    with pytest.raises(CardiganError, match="was changed after it was written"):
        leaderboard.main()


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"target": 6.0}, "target 6, and digits has 5: measure it again"), ({"rung": "digit"}, "did you mean 'digits'")],
)
def test_results_that_cannot_be_compared_are_refused(results, changed, said):
    (results / "bench-0.json").write_text(json.dumps(record("slow", 200.0, **changed)))
    with pytest.raises(CardiganError, match=said):
        leaderboard.main()


def test_seeds_that_missed_the_target_count_for_the_rank(results, tmp_path):
    """One fast seed of three does not win."""
    (results / "bench-0.json").write_text(json.dumps(record("lucky", 10.0, num_seeds_asked=3)))
    leaderboard.main()
    page = (tmp_path / "docs" / "leaderboard.md").read_text()
    assert page.index("| fast |") < page.index("| lucky | 10 (10-10) (1 of 3 seeds)")


def test_a_gpu_is_named(results, tmp_path):
    machine = {**MACHINE, "device": "cuda (NVIDIA H200)"}
    (results / "bench-0.json").write_text(json.dumps(record("quick", 20.0, machine=machine)))
    leaderboard.main()
    page = (tmp_path / "docs" / "leaderboard.md").read_text()
    assert "| 40 | 500 | 1.5 | 0.5 | cuda (NVIDIA H200), 2026-11-30 |" in page
