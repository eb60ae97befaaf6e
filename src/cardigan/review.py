"""From a run directory to its `report.html`: what was trained, how well, how it went.

Reads runs, never trains; how a page looks is `figures/report.py`'s business.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cardigan.config import Config, flatten
from cardigan.errors import CardiganError
from cardigan.figures.curves import Line, line_chart
from cardigan.figures.grid import png
from cardigan.figures.neighbours import neighbour_sheet
from cardigan.figures.report import Metric, Page, Picture, report_page
from cardigan.metrics.evaluate import evaluate, snapshot_sampler, worst_pictures
from cardigan.metrics.protocol import direction
from cardigan.metrics.real import reference_for
from cardigan.run.atomic import write_bytes
from cardigan.run.directory import RunDirectory, read_config, read_provenance
from cardigan.run.journal import Event, read_events
from cardigan.run.snapshot import Snapshot, read_snapshot

SHOWN_SAMPLES = 6
CHARTS = (
    ("losses", (("discriminator_loss", "D"), ("generator_loss", "G"))),
    ("how real D finds them", (("d_real", "real"), ("d_fake", "generated"))),
    ("D's margin, which has no scale", (("margin_real", "real"), ("margin_fake", "generated"))),
    ("penalties", (("r1", "R1"), ("r2", "R2"), ("wgan_gp", "WGAN-GP"), ("dragan", "DRAGAN"))),
    ("augmentation: how likely each change is", (("augmentation", "probability"),)),
    ("diversity (1: generated pictures differ as much as real ones)", (("diversity", "diversity"),)),
    ("D's gradient and G's", (("discriminator_gradient", "D"), ("generator_gradient", "G"))),
    ("images per second", (("images_per_second", "speed"),)),
)


QUICK_SAMPLES, WHOLE_SAMPLES = 2_000, 10_000
QUICK_METRICS = {"mnist": ("distance", "classes"), "stacked-mnist": ("stacked",)}
"""What a report at the end of training judges of each source, in seconds; `cardigan report` judges all."""
NOT_JUDGED = "Not judged yet, since that takes a minute or two: `cardigan report` and this folder's name do it. The score below is the cheap one."
NOTES = {"higher": "more is better", "lower": "less is better", "neither": ""}


def write_report(run: RunDirectory, snapshot: Snapshot | None = None, whole: bool = True) -> Path:
    """Judge the run's generator, write the run's report and return where it is.

    `whole` judges 10,000 samples by every metric beside real pictures, which takes a minute or two; otherwise 2,000 by the quick ones.
    Raises CardiganError for a folder that is no run.
    """
    config = read_config(run)
    found = judged(snapshot or read_snapshot(run.path), config, whole, run.path)
    return _written(run, *found)


def judged(snapshot: Snapshot, config: Config, whole: bool, model: Path | None = None) -> tuple[list[Metric], str, Picture | None]:
    """Return the judge's rows, their protocol, and the worst samples beside their neighbours; a sentence where there is no reference."""
    if not whole and config.data.source not in QUICK_METRICS:
        return [], NOT_JUDGED, None
    try:
        reference = reference_for(config, model)
    except CardiganError as error:
        return [], str(error), None
    sampler = snapshot_sampler(snapshot, reference, config.seed)
    metrics, count = (None, WHOLE_SAMPLES) if whole else (QUICK_METRICS[config.data.source], QUICK_SAMPLES)
    report = evaluate(sampler, reference, num_samples=count, metrics=metrics, floor=whole)
    rows = [
        Metric(name, f"{measure.value:.4g}", f"{measure.standard_error:.2g}", measure.floor_text, NOTES[direction(name)])
        for name, measure in report.measures.items()
    ]
    facts = report.protocol
    protocol = (
        f"{facts.num_samples:,} samples of seed {facts.seed} ({facts.frame}) "
        f"against {facts.num_reference:,} of {facts.reference} {facts.reference_split}; "
        f"extractor {facts.extractor} {facts.extractor_hash[:12]}, resizer {facts.resizer}, cardigan {facts.version}. "
        f"Reference {facts.reference_hash[:12]}."
    )
    missing = " ".join(f"{name} is absent: {reason}" for name, reason in report.absent.items())
    if not report.worst.get("memorised"):
        return rows, f"{protocol} {missing}", None
    samples, neighbours = worst_pictures(report, sampler, reference)
    sheet = png(neighbour_sheet(samples, neighbours))
    return rows, f"{protocol} {missing}", Picture(sheet, "The samples nearest to a training picture (left of each pair), and that picture (right).")


def _written(run: RunDirectory, metrics: Sequence[Metric], protocol: str, neighbours: Picture | None) -> Path:
    events = read_events(run.journal)
    if not events:
        raise CardiganError(f"{run.path} has no journal yet: wait for its first step.")
    config, facts = read_config(run), read_provenance(run)
    page = Page(
        title=f"Cardigan: {config.recipe}, {run.path.name}",
        summary=summary(events),
        samples=[Picture(path.read_bytes(), f"{int(path.stem):,} images") for path in chosen(run)],
        metrics=metrics,
        protocol=protocol,
        neighbours=neighbours,
        charts=charts(events),
        faults=[faulted(event) for event in events if event.kind == "fault"],
        settings=flatten(config),
        environment={name: value for name, value in facts.items() if name != "command"},
        command=shlex.join(["cardigan", *facts.get("command", [])[1:]]),
    )
    path = run.path / "report.html"
    write_bytes(path, report_page(page).encode())
    return path


def faulted(event: Event) -> str:
    values = event.values
    return f"{values.get('name')} at {event.images_seen:,} images: {values.get('words')}. {values.get('advice')}"


def summary(events: Sequence[Event]) -> dict[str, str]:
    last = events[-1]
    scores = {event.images_seen: event.values["score"] for event in events if event.kind == "checkpoint" and "score" in event.values}
    best = min(scores, key=lambda seen: scores[seen]) if scores else None
    rows = {"images seen": f"{last.images_seen:,}", "time": f"{last.elapsed_seconds:,.0f} s"}
    rows["state"] = f"stopped by {last.values['reason']}" if last.kind == "stop" else "training, or killed"
    if best is not None:
        rows["best checkpoint"] = f"{best:,} images, score {scores[best]:.2f} (last {scores[max(scores)]:.2f})"
    return rows


def charts(events: Sequence[Event]) -> list[str]:
    """Return a chart of each group of numbers that the journal has, the score first."""
    scored = [event for event in events if event.kind == "checkpoint" and "score" in event.values]
    score = Line("score", [float(event.images_seen) for event in scored], [float(event.values["score"]) for event in scored])
    wide = len(scored) > 1 and max(score.y) > 20 * min(score.y) > 0
    found = [line_chart("score (lower is better)", [score], logarithmic=wide)] if len(scored) > 1 else []
    progress = [event for event in events if event.kind == "progress"]
    for title, names in CHARTS:
        lines = [line for key, label in names if any((line := of(progress, key, label)).y)]
        found += [line_chart(title, lines)] if lines else []
    return [chart for chart in found if chart]


def of(events: Sequence[Event], key: str, label: str) -> Line:
    told = [event for event in events if key in event.values]
    return Line(label, [float(event.images_seen) for event in told], [float(event.values[key]) for event in told])


def chosen(run: RunDirectory) -> list[Path]:
    """Return the last sample sheet and a few before it, each about half as far into the run as the next."""
    sheets = sorted(run.samples.glob("[0-9]*.png"), key=lambda path: int(path.stem))
    if len(sheets) <= SHOWN_SAMPLES:
        return sheets
    last = int(sheets[-1].stem)
    wanted = [last / 2**step for step in range(SHOWN_SAMPLES)]
    return sorted({min(sheets, key=lambda path: abs(int(path.stem) - seen)) for seen in wanted}, key=lambda path: int(path.stem))
