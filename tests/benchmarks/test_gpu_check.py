"""`benchmarks/gpu.py` without a GPU: every part runs tiny; a failing or hanging part ends alone; checks can fail."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import speed_workers
from cardigan.nets.table import NETS
from cardigan.objective.augment import OPERATIONS
from cardigan.objective.losses import LOSSES
from cardigan.objective.penalties import PENALTIES
from cardigan.overrides import experiment_settings, flatten, override
from cardigan.recipes import config_for
from gpu_check import equality, marked_tests
from gpu_check.part import PartSkipped, Result, Settings
from gpu_check.small_training import SmallTraining, different_bits, same_bits
from gpu_check.speed_row import Case, compared
from gpu_check.table import MAX_TOTAL_SECONDS, PARTS
from gpu_check.training_speed import aims
from plain_pytorch import PlainLoop
from speed_workers import Worker
from variations import SMALL, VARIATIONS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SUBPROCESS_PARTS = (("kill", "devices"), ("serving", "speed"))
"""Parts that start processes. The command runs them, both rows at the same time, to use two cores."""
IN_PROCESS_PARTS = ("equality", "rollback", "out-of-memory", "sampling", "memory", "promise", "profile")
"""Parts that need no separate process on a CPU."""
NETWORKS = ("generator", "discriminator")
UNVARIED = {
    *("recipe", "start_from", "seed", "batch_size", "latent.size", "all_reduce_dtype"),
    *(f"data.{name}" for name in ("source", "split", "holdout", "max_images", "labels", "num_classes", "max_pixels")),
    *(f"{network}.{name}" for network in NETWORKS for name in ("width", "frozen_stages")),
    *(f"{network}_optimizer.{name}" for network in NETWORKS for name in ("name", "learning_rate", "beta2")),
    "generator.minibatch_stddev",
}
"""Settings that no variation changes: sizes, numbers, data, what needs a model to start from, and options that a
generator does not have."""


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_environment()
    )


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def is_running(process: int) -> bool:
    """Return whether a process still runs; a zombie does not."""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute in one thread, as a tiny run does."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(previous)


def test_missing_device_gives_one_line_error_and_no_file(tmp_path):
    command = started(str(BENCHMARKS / "gpu.py"), "--device", "cuda:63", "--out", str(tmp_path / "gpu.json"))
    output = command.communicate()[0]
    assert command.returncode == 2 and output.count("\n") == 1 and "device is 'cuda:63'" in output
    assert not (tmp_path / "gpu.json").exists()


def test_command_runs_parts_tiny_on_cpu(tmp_path):
    files = [tmp_path / f"{number}.json" for number in range(len(SUBPROCESS_PARTS))]
    options = [
        ("--only", ",".join(names), "--out", str(file)) for names, file in zip(SUBPROCESS_PARTS, files, strict=True)
    ]
    running = [started(str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--tiny", *words) for words in options]
    outputs = [process.communicate()[0] for process in running]
    found = {name: part for file in files for name, part in json.loads(file.read_text())["parts"].items()}
    assert [process.returncode for process in running] == [0, 0], (outputs, found)
    assert {name: part["status"] for name, part in found.items()} == dict.fromkeys(found, "passed")
    assert found.keys() == {"kill", "devices", "serving", "speed"}
    assert found["kill"]["kills"] == 1 and 0 < found["kill"]["resumed_at"][0] < found["kill"]["images"]
    assert found["serving"]["images_correct"] == found["serving"]["images_requested"] > 0
    (row,) = found["speed"]["rows"]
    assert row["images_per_second"].keys() == {"eager", "plain"}
    assert [target["met"] for target in found["speed"]["targets"]] == [None] * 3  # no target applies


@pytest.mark.parametrize("name", IN_PROCESS_PARTS)
def test_part_passes_tiny_on_cpu(tmp_path, one_thread, name):
    (tmp_path / "work").mkdir()
    result = Result(tmp_path / "result.json")
    PARTS[name].run(Settings("cpu", True, tmp_path / "work"), result)
    result.finish()
    assert result.status == "passed", result.failures
    expected: dict[str, Callable[[dict[str, Any]], bool]] = {
        "equality": lambda values: values["compared"] == values["cases"] == 5,
        "rollback": lambda values: values["rollbacks"] == 1 and values["learning_rate_factor"] == 0.5,
        "out-of-memory": lambda values: values["injected"]["gradient_accumulation"] == 4,
        "sampling": lambda values: values["recipes"] == 4,
        "memory": lambda values: len(values["megabytes"]["resident"]) == values["num_measurements"] == 5,
        "promise": lambda values: values["reached"] and len(values["rows"]) == 2,
        "profile": lambda values: len(values["eager"]["most_expensive"]) == 10,
    }
    assert expected[name](json.loads((tmp_path / "result.json").read_text()))


def test_marked_tests_are_counted(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["gpu: needs a GPU"]\n')
    tests = {"good": "pass", "bad": "assert False", "left_out": "pytest.skip('no GPU')"}
    lines = [
        f"@pytest.mark.{marker}\ndef test_{name}():\n    {work}" for marker in ("gpu",) for name, work in tests.items()
    ]
    file = tmp_path / "tests" / "test_some.py"
    monkeypatch.setattr(marked_tests, "ROOT", tmp_path)
    settings = Settings("cpu", True, tmp_path)
    with pytest.raises(PartSkipped, match="no test file"):
        marked_tests.run(settings, Result(tmp_path / "none.json"))
    file.write_text("\n".join(["import pytest", *lines, "def test_unmarked():\n    assert False"]))
    result = Result(tmp_path / "result.json")
    marked_tests.run(settings, result)
    assert result.values["counts"] == {"tests": 3, "failures": 1, "errors": 0, "skipped": 1, "passed": 1}
    assert result.failures == ["pytest ended with exit code 1", "failed: tests.test_some::test_bad"]


def test_every_part_is_tested():
    assert sorted([*SUBPROCESS_PARTS[0], *SUBPROCESS_PARTS[1], *IN_PROCESS_PARTS, "tests"]) == sorted(PARTS)


FAKES = {
    "passes": "result.check(True, '')",
    "fails": "result.check(1 + 1 == 3, '1 + 1 is not 3')",
    "misses": "result.target('a large number', 1.0, at_least=2.0)",
    "raises": "raise ValueError('no such thing')",
    "crashes": "result.add(measured=7); os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "child = subprocess.Popen(['sleep', '600']); result.add(child=child.pid); child.wait()",
    "crashes-at-its-end": "result.check(True, ''); atexit.register(os.kill, os.getpid(), signal.SIGSEGV)",
    "checks-nothing": "result.add(measured=7)",
    "leaves-out": "raise PartSkipped('no such machine')",
    "passes-last": "result.check(True, '')",
}


def test_failing_part_does_not_affect_others(tmp_path):
    for name, work in FAKES.items():
        lines = [
            "import atexit, os, signal, subprocess",
            "from gpu_check.part import PartSkipped",
            "def run(settings, result):",
            f"    {work}",
        ]
        (tmp_path / f"fake_{name.replace('-', '_')}.py").write_text("\n".join(lines))
    script = tmp_path / "gpu_with_fakes.py"
    parts = {name: f"fake_{name.replace('-', '_')}" for name in FAKES}
    script.write_text(f"""
import sys
sys.path[:0] = [{str(BENCHMARKS)!r}, {str(tmp_path)!r}]
import gpu
from gpu_check.table import PARTS, Part
gpu.__file__ = __file__
PARTS.clear()
PARTS.update({{name: Part("", module, 3) for name, module in {parts!r}.items()}})
sys.exit(gpu.main())
""")
    out = tmp_path / "out.json"
    running = started(str(script), "--device", "cpu", "--only", ",".join(FAKES), "--out", str(out))
    output = running.communicate()[0]
    assert running.returncode == 1, output
    found = json.loads(out.read_text())["parts"]
    status = {name: part["status"] for name, part in found.items()}
    failed = dict.fromkeys(("fails", "misses", "raises", "crashes", "crashes-at-its-end", "checks-nothing"), "failed")
    skipped = {"leaves-out": "skipped: no such machine"}
    assert status == {"passes": "passed", "hangs": "timed out", "passes-last": "passed", **failed, **skipped}, output
    assert found["fails"]["failures"] == ["1 + 1 is not 3"]
    assert found["misses"]["targets"] == [{"target": "a large number", "value": 1.0, "met": False}]
    assert "ValueError: no such thing" in found["raises"]["failures"][0]
    assert (
        found["crashes"]["failures"] == ["its process ended with exit code -11"] and found["crashes"]["measured"] == 7
    )
    assert 3 <= found["hangs"]["seconds"] < 20
    assert not is_running(found["hangs"]["child"])
    assert found["checks-nothing"]["failures"] == ["nothing was checked"]
    assert "hangs         timed out" in output and "| a large number | 1.0 | no |" in output


def test_unknown_part_is_rejected_first(tmp_path):
    running = started(str(BENCHMARKS / "gpu.py"), "--only", "speeds", "--out", str(tmp_path / "out.json"))
    assert "--only has 'speeds': expected some of devices, equality" in running.communicate()[0]
    assert running.returncode == 2 and not (tmp_path / "out.json").exists()


def test_time_limits_sum_to_nine_minutes():
    assert sum(part.limit_seconds for part in PARTS.values()) <= MAX_TOTAL_SECONDS == 540


def test_variations_cover_every_option():
    start = override(config_for("mnist"), SMALL)
    configs = {name: override(start, changes) for name, changes in VARIATIONS.items()}
    assert {config.objective.loss for config in configs.values()} == LOSSES.keys()
    for role in ("generator", "discriminator"):
        networks = {getattr(config, role).network for config in configs.values()}
        assert networks == {name for name, family in NETS.items() if getattr(family, role)}
    assert {name for config in configs.values() for name in config.objective.penalties} == PENALTIES.keys()
    assert {name for config in configs.values() for name in config.augment.operation_names} == OPERATIONS.keys()
    before, after = flatten(start), [flatten(config) for config in configs.values()]
    unvaried = {
        name
        for name in [*experiment_settings(start), "gradient_accumulation"]
        if all(values[name] == before[name] for values in after)
    }
    assert unvaried - UNVARIED == set()


def tiny(**changes: object):
    small = {
        **SMALL,
        "batch_size": 8,
        "generator.width": 4,
        "discriminator.width": 4,
        "data.max_images": 64,
        "device": "cpu",
    }
    return override(config_for("mnist"), {**small, **changes})


def test_incomplete_restore_is_detected(monkeypatch):
    config = tiny(**{"data.height": 8, "data.width": 8})
    assert equality.compared(config, sent=False)["failures"] == []
    original_load = SmallTraining.load

    def incomplete_load(self: SmallTraining, tensors, images_seen):
        original_load(
            self,
            {name: 0 * tensor if name.endswith("exp_avg_sq") else tensor for name, tensor in tensors.items()},
            images_seen,
        )

    monkeypatch.setattr(SmallTraining, "load", incomplete_load)
    failures = equality.compared(config, sent=False)["failures"]
    assert len(failures) == 2 and all(failure.startswith("a resumed run: ") for failure in failures)


def test_single_bit_is_a_difference():
    one, other = torch.tensor([1.0, 0.0, float("nan")]), torch.tensor([1.0, -0.0, float("nan")])
    assert same_bits(one, one.clone()) and not same_bits(one, other)
    assert "1 of 2 tensors differ" in different_bits({"a": one, "b": one}, {"a": one, "b": other})
    assert different_bits({"a": one}, {"b": one}) == "other tensors: ['a', 'b']"


WORKER = """
import json, sys, time
for line in sys.stdin:
    question = json.loads(line)
    if sys.argv[1] == "hangs":
        time.sleep(600)
    if sys.argv[1] == "ends" and "steps" in question:
        raise SystemExit("no memory is left")
    answers = {"rates": {"bf16": 100.0}, "memory": {"megabytes": 7.0}}
    print(json.dumps(next((answers[name] for name in answers if name in question), {"seconds": 0.5})), flush=True)
"""


def test_failing_worker_leaves_others_measured(tmp_path, monkeypatch):
    """Workers that only answer: one ends at its first step, and one never finishes compiling."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(speed_workers, "__file__", str(script))
    settings: dict[str, Any] = {"recipe": "mnist", "batch_size": 64, "device": "cpu"}
    result = Result(tmp_path / "result.json")
    kinds = {"eager": "answers", "plain": "ends", "compiled": "hangs"}
    case = Case("mnist at batch 64", settings, {way: Worker(kind, settings) for way, kind in kinds.items()}, result)
    case.workers["compiled"].send(steps=4)
    case.wait_for_compiled(0.2)
    with Worker("answers", settings) as product:
        row = case.row(product, windows=3, seconds=1.0)
    case.end()
    assert row["images_per_second"] == {"eager": {"median": 1024.0, "low": 1024.0, "high": 1024.0}}  # 8 steps in 0.5 s
    assert row["peak_megabytes"] == {"eager": 7}
    assert result.skipped == {"mnist at batch 64, compiled": "hangs: no answer within 0.2 s"}
    assert result.failures == ["mnist at batch 64: ends: ended with exit code 1: no memory is left"]


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
def test_compiled_plain_loop_equals_plain_loop(one_thread):
    config, losses = tiny(conditional=False), []
    for compiled in (False, True):
        torch.manual_seed(0)
        loop = PlainLoop(config, torch.rand(16, 1, 32, 32))
        if compiled:
            loop.compile("eager")  # traces only; compiling takes longer than this test
        losses.append([loop.step() for _ in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_targets_use_recorded_steps():
    speeds = {
        "recorded": [300.0, 320.0],
        "eager": [100.0, 100.0],
        "plain": [200.0, 200.0],
        "plain without TF32": [50.0, 40.0],
    }
    row = {"recipe": "tutorial", "batch_size": 64, **compared(speeds, [1000.0, 1000.0], 1e9)}
    assert [(value, least) for _, value, least in aims([row])] == [(1.55, 1.5), (7.0, 5.0), (None, 0.4)]
    assert [value for _, value, _ in aims([{**row, "batch_size": 1024}])] == [None, None, 0.31]
    del speeds["recorded"]  # without recorded steps no target is met
    assert [value for _, value, _ in aims([{**row, **compared(speeds, [1000.0, 1000.0], 1e9)}])] == [None] * 3


@pytest.mark.parametrize(("value", "met"), [(1.5, True), (1.49, False), (None, False)])
def test_missing_number_misses_target(tmp_path, value, met):
    result = Result(tmp_path / "result.json")
    result.target("speed", value, at_least=1.5)
    result.finish()
    assert (result.targets[0].met, result.status) == (met, "passed" if met else "failed")


def test_settings_on_gpu(tmp_path):
    assert [Settings(name, False, tmp_path).on_gpu for name in ("cpu", "cuda", "cuda:1")] == [False, True, True]
