"""The tests with the marker `gpu`, run by pytest."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from gpu_check.part import PartSkipped, Result, Settings

ROOT = Path(__file__).parents[2]
MARKER = ".".join(("mark", "gpu"))
COUNTS = ("tests", "failures", "errors", "skipped")


def run(settings: Settings, result: Result) -> None:
    files = marked_files()
    if not files:
        raise PartSkipped("no test file has the marker `gpu`")
    report = settings.folder / "junit.xml"
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    done = subprocess.run([*words, *map(str, files)], cwd=ROOT, check=False)
    counts = dict.fromkeys(COUNTS, 0)
    failed: list[str] = []
    for suite in ElementTree.parse(report).iter("testsuite") if report.exists() else ():
        for name in COUNTS:
            counts[name] += int(suite.get(name, "0"))
        failed += [f"{case.get('classname')}::{case.get('name')}" for case in suite.iter("testcase") if is_failed(case)]
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    result.add(files=[str(file.relative_to(ROOT)) for file in files], counts={**counts, "passed": passed})
    result.check(done.returncode in (0, 5), f"pytest ended with exit code {done.returncode}")
    for name in failed:
        result.check(False, f"failed: {name}")
    if settings.on_gpu:
        result.check(passed > 0, "no test passed")
        result.check(not counts["skipped"], f"{counts['skipped']} tests were skipped although there is a GPU")
    elif not result.failures and not passed:
        raise PartSkipped(f"no GPU: {counts['skipped']} tests that need one were skipped by pytest")


def marked_files() -> list[Path]:
    return sorted(path for path in (ROOT / "tests").rglob("test_*.py") if MARKER in path.read_text())


def is_failed(case: ElementTree.Element) -> bool:
    return any(case.find(kind) is not None for kind in ("failure", "error"))
