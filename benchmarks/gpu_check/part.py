"""Settings and results of one part: numbers, checks, skipped cases and targets.

Independent of what is measured and of how a part is started.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESERVED = {"status", "seconds", "checks", "failures", "skipped", "targets", "output"}
NOT_APPLICABLE = "only for a GPU at full size"


@dataclass(frozen=True)
class Settings:
    """Where and at what size a part runs."""

    device: str
    """cpu, cuda or cuda:1."""
    tiny: bool
    """Tiny networks, batches and step counts: for a test of the program itself on a CPU."""
    folder: Path
    """An empty folder for this part, removed afterwards."""

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")


class PartSkipped(Exception):
    """The whole part cannot run here; the message is the reason."""


@dataclass(frozen=True)
class Target:
    """A target for a number. `met` is None if it does not apply."""

    target: str
    value: float | None
    met: bool | None


@dataclass
class Result:
    """The results of a part so far. Written after every change, so that an aborted part keeps them."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Reasons by skipped case."""
    targets: list[Target] = field(default_factory=list)
    checks: int = 0
    status: str = "unfinished"
    began: float = field(default_factory=time.monotonic)

    def add(self, **values: Any) -> None:
        """Add these numbers."""
        assert not RESERVED & values.keys(), f"{RESERVED & values.keys()} is reserved"
        self.values.update(values)
        self.write()

    def check(self, holds: bool, failure: str) -> bool:
        """Count a check, with the message `failure` if it does not hold. Return whether it holds."""
        self.checks += 1
        if not holds:
            self.failures.append(failure)
        self.write()
        return holds

    def skip(self, what: str, reason: str) -> None:
        """Record a case that cannot run here, and why."""
        self.skipped[what] = reason
        self.write()

    def target(
        self, text: str, value: float | None, *, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        """Compare a number with a target; a missing number misses it."""
        met = value is not None and (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        self.targets.append(Target(text, value, met))
        self.check(met, f"target missed: {text}; measured {'nothing' if value is None else f'{value:g}'}")

    def without_target(self, text: str, value: float | None) -> None:
        """Record a target that does not apply to this run, with the measured number."""
        self.targets.append(Target(f"{text} ({NOT_APPLICABLE})", value, None))
        self.write()

    def finish(self, error: str = "") -> None:
        """Set the status. A part without a check fails, because it would pass whatever happened."""
        if error:
            self.failures.append(error)
        if not self.checks and not error:
            self.failures.append("nothing was checked")
        self.status = "failed" if self.failures else "passed"
        self.write()

    def skip_all(self, reason: str) -> None:
        self.status = f"skipped: {reason}"
        self.write()

    def write(self) -> None:
        """Write the results so far atomically."""
        content = {"status": self.status, "seconds": round(time.monotonic() - self.began, 2), "checks": self.checks}
        content |= {
            "failures": self.failures,
            "skipped": self.skipped,
            "targets": [asdict(target) for target in self.targets],
        }
        write_json(self.path, content | self.values)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    with temporary.open("w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
