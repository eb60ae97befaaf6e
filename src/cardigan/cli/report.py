"""`cardigan report RUN`: write the run's full report.html from the files of the run so far."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cardigan.cli.metric_progress import metric_progress
from cardigan.cli.output_path import open_path
from cardigan.cli.parsing import parse


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write a run's report: samples over time, curves, metrics, settings, the command. One self-contained HTML file."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory; it may still be training."""
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the report in the browser."""


def main(argv: list[str]) -> int:
    """Write the report; return the exit code."""
    options = parse(ReportOptions, argv, "cardigan report")

    from cardigan.report.build import write_report
    from cardigan.run.directory import RunDirectory

    with metric_progress() as on_metric:
        path = write_report(RunDirectory(options.run), on_metric=on_metric)
    print(path)
    if options.open:
        open_path(path)
    return 0
