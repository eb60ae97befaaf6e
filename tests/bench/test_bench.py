"""`cardigan bench`: a training until its target, its record, and the same training again."""

import json
import math
from dataclasses import replace

import pytest

from cardigan.bench import rungs, timing
from cardigan.bench.machine import describe_machine
from cardigan.bench.record import checksum, make_record, median_seconds, read_record
from cardigan.bench.rungs import RUNGS, check_memory, check_recipe, rung_settings, rung_source
from cardigan.bench.timing import reading
from cardigan.cli.main import run as run_command
from cardigan.errors import CardiganError
from cardigan.overrides import override
from cardigan.recipes import RECIPES
from cardigan.run.journal import Event

TINY = replace(
    RUNGS["digits"],
    target=1e9,
    cadence_images=32,
    limit_minutes=3.0,
    settings={"generator.width": 4, "discriminator.width": 4, "batch_size": 16, "data.max_images": 500},
)


@pytest.fixture
def tiny_rung(monkeypatch):
    monkeypatch.setitem(RUNGS, "tiny", TINY)


def test_rungs_name_recipes_and_can_be_reached():
    for name, rung in RUNGS.items():
        assert rung.recipe in RECIPES and rung.target > 0 and rung.cadence_images > 0, name
        assert "samples" in rung.score, name


def test_two_seeds_are_timed_recorded_and_repeated(tiny_rung, tmp_path, capsys):
    out = tmp_path / "result.json"
    words = ["bench", "--rung", "tiny", "--seeds", "2", "--device", "cpu", "--out", str(out)]
    assert run_command([*words, "--runs", str(tmp_path / "runs")]) == 0
    text = capsys.readouterr().out
    assert "2 of 2 seeds reached the target: median" in text and "calibration" not in text.split("Written")[1]
    record = read_record(out)
    assert [seed["seed"] for seed in record["seeds"]] == [0, 1]
    for seed in record["seeds"]:
        # The first checkpoint of a run is evaluated too, so the second one is the second in a row.
        assert seed["reached"] and seed["images"] == 32 and len(seed["curve"]) == 2
        assert 0 < seed["seconds"] < 180 and seed["cpu_seconds"] > 0 and seed["peak_megabytes"] > 100
        assert seed["generator_megabytes"] > 0 and seed["seconds_per_1000_samples"] > 0
    assert record["summary"]["images"] == {"median": 32, "low": 32, "high": 32}
    assert run_command(["bench", "--check", str(out), "--device", "cpu", "--runs", str(tmp_path / "again")]) == 0
    assert "The same number of images and the same score." in capsys.readouterr().out


def test_training_that_does_not_reach_its_target_is_recorded(tiny_rung, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(RUNGS, "tiny", replace(TINY, target=1e-9))
    out = tmp_path / "result.json"
    words = ["bench", "--rung", "tiny", "--seeds", "1", "--device", "cpu", "--out", str(out)]
    assert run_command([*words, "--runs", str(tmp_path / "runs"), "--limit-minutes", "0.4"]) == 0
    assert "0 of 1 seeds reached the target" in capsys.readouterr().out
    record = read_record(out)
    assert record["seeds"][0]["reached"] is False and record["seeds"][0]["images"] > 0
    assert "seconds" not in record["summary"]


def test_training_that_fails_on_its_way_is_recorded(tiny_rung, tmp_path, capsys, monkeypatch):
    """The other seeds are trained all the same. One that fails before its first step ends the command."""
    launch, failures = timing._launch, [False, True]

    def fail_second(command):
        measured = launch(command)
        return {**measured, "exit_code": 2, "errors": "error: out of memory"} if failures.pop(0) else measured

    monkeypatch.setattr(timing, "_launch", fail_second)
    out = tmp_path / "result.json"
    words = ["bench", "--rung", "tiny", "--seeds", "2", "--device", "cpu", "--out", str(out)]
    assert run_command([*words, "--runs", str(tmp_path / "runs")]) == 0
    text = capsys.readouterr().out
    assert "(failed: error: out of memory)" in text and "1 of 2 seeds reached the target" in text
    record = read_record(out)
    assert record["seeds"][1]["failed"] == "error: out of memory" and not record["seeds"][1]["reached"]
    assert median_seconds(record) == math.inf and record["num_seeds_asked"] == 2
    monkeypatch.setattr(timing, "_launch", lambda _: {"exit_code": 2, "errors": "error: no images", "cpu_seconds": 0})
    assert run_command([*words, "--runs", str(tmp_path / "other"), "--overwrite"]) == 2
    assert "failed: error: no images" in capsys.readouterr().err


@pytest.mark.parametrize("name", RUNGS)
def test_settings_of_every_rung_fit_its_recipe(name):
    rung = RUNGS[name]
    check_recipe(rung, rung.recipe)
    config = override(RECIPES[rung.recipe].config(), rung_settings(rung, rung.recipe))
    others = [recipe for recipe in RECIPES if recipe != rung.recipe]
    assert rung_settings(rung, others[0]) == dict(rung.settings)
    assert (config.data.height, config.data.width) == ((128, 128) if "128" in name else (config.data.height,) * 2)


def test_list_says_what_a_rung_needs(capsys):
    assert run_command(["bench", "--list"]) == 0
    text = capsys.readouterr().out
    assert "2 GB of memory" in text and "python benchmarks/image_sets.py icons" in text


def test_seconds_are_those_of_training_without_evaluations():
    def checkpoint(images, elapsed, score):
        return Event("checkpoint", images, elapsed, {"score": score, "evaluation_seconds": 2.0})

    events = [checkpoint(0, 5.0, 900.0), checkpoint(100, 17.0, 7.0), checkpoint(200, 29.0, 4.0)]
    read = reading([*events, Event("stop", 200, 30.0, {"reason": "target"})])
    assert read["curve"] == [[0, 3.0, 900.0], [100, 13.0, 7.0], [200, 23.0, 4.0]]
    assert (read["reached"], read["seconds"], read["images"], read["score"]) == (True, 23.0, 200, 4.0)
    limited = reading([*events, Event("stop", 200, 30.0, {"reason": "minutes"})])
    assert limited["reached"] is False and limited["best_score"] == 4.0


def test_changed_record_is_refused(tmp_path):
    record = make_record({"rung": "digits"}, [])
    assert record["sha256"] == checksum(record)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(record))
    assert read_record(path) == record
    path.write_text(json.dumps({**record, "rung": "stacked"}))
    with pytest.raises(CardiganError, match="was changed after it was written"):
        read_record(path)
    path.write_text("{}")
    with pytest.raises(CardiganError, match="is not a result of cardigan bench"):
        read_record(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rung", "digit"], "did you mean 'digits'?"),
        (["--recipe", "mnits"], "did you mean 'mnist'?"),
        (["--recipe", "sngan"], "recipe sngan is not class-conditional, and generators of this rung are"),
        (["--rung", "digits-unconditional", "--recipe", "mnist"], "is class-conditional, and generators of this rung"),
        (["--seeds", "0"], "--seeds is 0: expected at least 1 training."),
        (["--limit-minutes", "-1"], "--limit-minutes is -1.0: expected a positive number of minutes."),
        (["--check", "missing.json"], "missing.json is damaged"),
        (["--check", "missing.json", "--rung", "digits"], "--rung has no effect with --check"),
        (["--out", "result.txt"], "expected a name ending in .json"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert run_command(["bench", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_missing_set_names_the_command_that_makes_it(monkeypatch, tmp_path):
    monkeypatch.setattr(rungs, "cache_dir", lambda: tmp_path)
    with pytest.raises(
        CardiganError, match=r"The image set icons was not found.*python benchmarks/image_sets\.py icons"
    ):
        rung_source(RUNGS["icons-64"])
    with pytest.raises(CardiganError, match=r"GB of memory are free, and this rung takes about 1e\+09 GB"):
        check_memory(replace(RUNGS["digits"], memory_gigabytes=1e9))


def test_machine_is_described_with_its_calibration():
    machine = describe_machine("cpu")
    assert machine["cpu"] and machine["device"] == "cpu"
    assert machine["calibration"]["fp32_gflops"] > 0.1 and machine["calibration"]["copy_gigabytes_per_second"] > 0.1
