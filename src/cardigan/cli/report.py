"""`cardigan report RUN`: write the run's full report.html from the files of the run so far."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cardigan.cli.parsing import parse


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write a run's report: samples over time, curves, metrics, settings, the command. One self-contained HTML file."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory; it may still be training."""


def main(argv: list[str]) -> int:
    """Write the report; return the exit code."""
    options = parse(ReportOptions, argv, "cardigan report")

    from cardigan.report.build import write_report
    from cardigan.run.directory import RunDirectory

    print(write_report(RunDirectory(options.run)))
    return 0
