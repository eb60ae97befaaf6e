"""What fewer bits cost, by the judge: the same samples of the trained weights and of the rounded ones, number beside number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cardigan.exports.graph import plain
from cardigan.exports.interface import Format
from cardigan.metrics.evaluate import evaluate, snapshot_sampler
from cardigan.metrics.protocol import Report, differs, direction
from cardigan.metrics.real import reference_for
from cardigan.run.rounding import Weights, rounded
from cardigan.run.snapshot import Snapshot

SAMPLES = 10_000


@dataclass(frozen=True)
class Cost:
    """The judge's report on the trained weights, and, where they were rounded, on what was exported."""

    before: Report
    after: Report | None
    weights: Weights


def judged(snapshot: Snapshot, model: Path | None, num_samples: int = SAMPLES, metrics: Sequence[str] | None = None) -> Report:
    """Return the report that `cardigan evaluate` gives; raises CardiganError where there are no real pictures to judge by."""
    reference = reference_for(snapshot.config, model)
    return evaluate(snapshot_sampler(snapshot, reference), reference, num_samples=num_samples, metrics=metrics)


def stored_snapshot(snapshot: Snapshot, weights: Weights, format: Format) -> Snapshot:
    """Return what an export draws with; a graph's weights are rounded after they are divided by their spectral norms."""
    if format.stored is not None:
        return format.stored(snapshot, weights)
    return replace(snapshot, generator=rounded(plain(snapshot.generator) if format.as_graph else snapshot.generator, weights))


def cost_lines(cost: Cost) -> list[str]:
    """Return the judge's numbers as the lines of a card."""
    after = cost.after
    head = ["metric", "fp32" if after else "value", *([cost.weights, "differs"] if after else []), "real pictures", "better"]
    rows = []
    for name, measure in cost.before.measures.items():
        other = after.measures.get(name) if after else None
        beside = [] if after is None else [other.text, "yes" if differs(measure, other) else "no"] if other else ["", ""]
        rows.append([name, measure.text, *beside, measure.floor_text, direction(name)])
    protocol = cost.before.protocol
    return [
        *(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]),
        "",
        f"Protocol: {protocol.num_samples:,} samples of seed {protocol.seed} ({protocol.frame}) against {protocol.num_reference:,} of "
        f"{protocol.reference} {protocol.reference_split} ({protocol.reference_hash[:12]}), extractor {protocol.extractor} "
        f"{protocol.extractor_hash[:12]}, resizer {protocol.resizer}, cardigan {protocol.version}; errors are standard errors, "
        "and what differs does so by more than twice the error of the difference.",
        *(f"{name} is absent: {reason}" for name, reason in cost.before.absent.items()),
    ]
