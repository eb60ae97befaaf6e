"""`cardigan compare RUN RUN...`: evaluate several models under one protocol and find significant differences."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.evaluate import ProtocolOptions, aligned_lines, evaluate_model, protocol_lines
from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError

if TYPE_CHECKING:
    from cardigan.metrics.protocol import Report


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ProtocolOptions):
    """Evaluate several generators under the same protocol and report the best one for each metric."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Two or more run directories, checkpoint folders, generator.safetensors, or models on the hub, hf:user/name."""


def main(argv: list[str]) -> int:
    """Print the comparison; return the exit code."""
    options = parse(CompareOptions, argv, "cardigan compare")
    if len(options.models) < 2:
        raise CardiganError("One model cannot be compared: give two or more, or use cardigan evaluate.")
    reports = [evaluate_model(model, options)[0] for model in options.models]
    if len({report.protocol.reference_sha256 for report in reports}) > 1:
        names = ", ".join(
            f"{model}: {report.protocol.reference}" for model, report in zip(options.models, reports, strict=True)
        )
        raise CardiganError(
            f"These models are evaluated on different real images ({names}): compare models of the same data."
        )
    if options.json:
        print(
            json.dumps(
                {str(model): report.to_dict() for model, report in zip(options.models, reports, strict=True)}, indent=1
            )
        )
    else:
        print(comparison_text([str(model) for model in options.models], reports))
    return 0


def comparison_text(names: list[str], reports: "list[Report]") -> str:
    """Return the table of the metrics that all reports have, with the best model of each."""
    common = [name for name in reports[0].metrics if all(name in report.metrics for report in reports)]
    rows = [("", *(str(index + 1) for index in range(len(reports))), "real baseline", "better", "best")]
    for name in common:
        values = [report.metrics[name] for report in reports]
        rows.append(
            (
                name,
                *(value.text for value in values),
                values[0].baseline_text,
                values[0].better,
                _best_text(name, reports),
            )
        )
    lines = [
        f"{number + 1}: {name}, {report.images_seen:,} images"
        for number, (name, report) in enumerate(zip(names, reports, strict=True))
    ]
    missing = [
        f"{name} is unavailable: {reason}"
        for name, reason in sorted({item for report in reports for item in report.unavailable.items()})
    ]
    return "\n".join([*lines, "", *aligned_lines(rows), "", *missing, *protocol_lines(reports[0])])


def _best_text(name: str, reports: "list[Report]") -> str:
    """Return the number of the best report, and of the second if it is within twice the error of the difference."""
    from cardigan.metrics.protocol import differs_significantly

    better = reports[0].metrics[name].better
    if better == "neither":
        return ""
    order = sorted(
        range(len(reports)), key=lambda index: reports[index].metrics[name].value, reverse=better == "higher"
    )
    first, second = (reports[index].metrics[name] for index in order[:2])
    if first.value == second.value:
        return "equal"
    if first.standard_error is None or second.standard_error is None:
        return f"{order[0] + 1}, errors unknown"
    return (
        f"{order[0] + 1}"
        if differs_significantly(first, second)
        else f"{order[0] + 1}, within the errors of {order[1] + 1}"
    )
