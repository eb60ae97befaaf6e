"""From a run directory to its `report.html`: what was trained, how well, how it went.

Reads runs, never trains; how a page looks is `report/page.py`'s business.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cardigan.config import Config, flatten
from cardigan.errors import CardiganError
from cardigan.figures.curves import Line, line_chart
from cardigan.figures.grid import neighbor_grid, png_bytes
from cardigan.files.atomic import write_bytes
from cardigan.metrics.evaluate import evaluate, generator_sampler, worst_pairs
from cardigan.metrics.protocol import direction
from cardigan.metrics.reference_loader import load_reference
from cardigan.models.snapshot import Snapshot, read_snapshot
from cardigan.report.page import Figure, ReportMetric, ReportPage, render_page
from cardigan.run.directory import RunDirectory, read_config, read_provenance
from cardigan.run.journal import Event, read_events

MAX_SAMPLE_SHEETS = 6
CHARTS = (
    ("losses", (("discriminator_loss", "D"), ("generator_loss", "G"))),
    ("D(x) and D(G(z))", (("d_real", "real"), ("d_fake", "generated"))),
    ("logit margin", (("margin_real", "real"), ("margin_fake", "generated"))),
    ("penalties", (("r1", "R1"), ("r2", "R2"), ("wgan_gp", "WGAN-GP"), ("dragan", "DRAGAN"))),
    ("augmentation probability", (("augment_probability", "probability"),)),
    ("diversity (1: generated pictures differ as much as real ones)", (("diversity", "diversity"),)),
    ("D's gradient and G's", (("discriminator_gradient_norm", "D"), ("generator_gradient_norm", "G"))),
    ("images per second", (("images_per_second", "speed"),)),
)


QUICK_SAMPLES, FULL_SAMPLES = 2_000, 10_000
QUICK_METRICS = {"mnist": ("frechet", "classes"), "stacked-mnist": ("stacked_mnist",)}
"""What a report at the end of training judges of each source, in seconds; `cardigan report` judges all."""
NOT_EVALUATED = "Not judged yet, since that takes a minute or two: `cardigan report` and this folder's name do it. The score below is the quick score."
DIRECTION_NOTES = {"higher": "higher is better", "lower": "lower is better", "neither": ""}


def write_report(run: RunDirectory, snapshot: Snapshot | None = None, full: bool = True) -> Path:
    """Judge the run's generator, write the run's report and return where it is.

    `full` judges 10,000 samples by every metric beside real pictures, which takes a minute or two; otherwise 2,000 by the quick ones.
    Raises CardiganError for a folder that is no run.
    """
    config = read_config(run)
    evaluation = evaluation_rows(snapshot or read_snapshot(run.path), config, full, run.path)
    return _write_page(run, *evaluation)


def evaluation_rows(
    snapshot: Snapshot, config: Config, full: bool, model: Path | None = None
) -> tuple[list[ReportMetric], str, Figure | None]:
    """Return the judge's rows, their protocol, and the worst samples beside their neighbours; a sentence where there is no reference."""
    if not full and config.data.source not in QUICK_METRICS:
        return [], NOT_EVALUATED, None
    try:
        reference = load_reference(config, model)
    except CardiganError as error:
        return [], str(error), None
    sampler = generator_sampler(snapshot, reference, config.seed)
    metrics, count = (None, FULL_SAMPLES) if full else (QUICK_METRICS[config.data.source], QUICK_SAMPLES)
    report = evaluate(sampler, reference, num_samples=count, metrics=metrics, baseline=full)
    rows = [
        ReportMetric(
            name,
            f"{measure.value:.4g}",
            f"{measure.standard_error:.2g}",
            measure.baseline_text,
            DIRECTION_NOTES[direction(name)],
        )
        for name, measure in report.metrics.items()
    ]
    protocol_facts = report.protocol
    protocol = (
        f"{protocol_facts.num_samples:,} samples of seed {protocol_facts.seed} ({protocol_facts.image_resize}) "
        f"against {protocol_facts.num_reference:,} of {protocol_facts.reference} {protocol_facts.reference_split}; "
        f"extractor {protocol_facts.extractor} {protocol_facts.extractor_sha256[:12]}, resizer {protocol_facts.extractor_resize}, cardigan {protocol_facts.cardigan_version}. "
        f"Reference {protocol_facts.reference_sha256[:12]}."
    )
    missing = " ".join(f"{name} is unavailable: {reason}" for name, reason in report.unavailable.items())
    if not report.worst.get("memorized"):
        return rows, f"{protocol} {missing}", None
    samples, neighbors = worst_pairs(report, sampler, reference)
    neighbor_png = png_bytes(neighbor_grid(samples, neighbors))
    return (
        rows,
        f"{protocol} {missing}",
        Figure(
            neighbor_png, "The samples nearest to a training picture (left of each pair), and that picture (right)."
        ),
    )


def _write_page(run: RunDirectory, metrics: Sequence[ReportMetric], protocol: str, neighbors: Figure | None) -> Path:
    events = read_events(run.journal)
    if not events:
        raise CardiganError(f"{run.path} has no journal yet: wait for its first step.")
    config, facts = read_config(run), read_provenance(run)
    page = ReportPage(
        title=f"Cardigan: {config.recipe}, {run.path.name}",
        summary=run_summary(events),
        samples=[Figure(path.read_bytes(), f"{int(path.stem):,} images") for path in sample_sheets(run)],
        metrics=metrics,
        protocol=protocol,
        neighbors=neighbors,
        charts=journal_charts(events),
        faults=[fault_text(event) for event in events if event.kind == "fault"],
        settings=flatten(config),
        environment={name: value for name, value in facts.items() if name != "command"},
        command=shlex.join(["cardigan", *facts.get("command", [])[1:]]),
    )
    path = run.path / "report.html"
    write_bytes(path, render_page(page).encode())
    return path


def fault_text(event: Event) -> str:
    values = event.values
    return f"{values.get('name')} at {event.images_seen:,} images: {values.get('message')}. {values.get('advice')}"


def run_summary(events: Sequence[Event]) -> dict[str, str]:
    last = events[-1]
    scores = {
        event.images_seen: event.values["score"]
        for event in events
        if event.kind == "checkpoint" and "score" in event.values
    }
    best = min(scores, key=lambda seen: scores[seen]) if scores else None
    rows = {"images seen": f"{last.images_seen:,}", "time": f"{last.elapsed_seconds:,.0f} s"}
    rows["state"] = f"stopped by {last.values['reason']}" if last.kind == "stop" else "training, or killed"
    if best is not None:
        rows["best checkpoint"] = f"{best:,} images, score {scores[best]:.2f} (last {scores[max(scores)]:.2f})"
    return rows


def journal_charts(events: Sequence[Event]) -> list[str]:
    """Return a chart of each group of numbers that the journal has, the score first."""
    scored_events = [event for event in events if event.kind == "checkpoint" and "score" in event.values]
    score = Line(
        "score",
        [float(event.images_seen) for event in scored_events],
        [float(event.values["score"]) for event in scored_events],
    )
    wide_range = len(scored_events) > 1 and max(score.y) > 20 * min(score.y) > 0
    charts_html = (
        [line_chart("score (lower is better)", [score], log_scale=wide_range)] if len(scored_events) > 1 else []
    )
    progress = [event for event in events if event.kind == "progress"]
    for title, names in CHARTS:
        lines = [line for key, label in names if any((line := event_line(progress, key, label)).y)]
        charts_html += [line_chart(title, lines)] if lines else []
    return [chart for chart in charts_html if chart]


def event_line(events: Sequence[Event], key: str, label: str) -> Line:
    events_with_key = [event for event in events if key in event.values]
    return Line(
        label,
        [float(event.images_seen) for event in events_with_key],
        [float(event.values[key]) for event in events_with_key],
    )


def sample_sheets(run: RunDirectory) -> list[Path]:
    """Return the last sample sheet and a few before it, each about half as far into the run as the next."""
    sheets = sorted(run.samples.glob("[0-9]*.png"), key=lambda path: int(path.stem))
    if len(sheets) <= MAX_SAMPLE_SHEETS:
        return sheets
    last = int(sheets[-1].stem)
    target_images = [last / 2**step for step in range(MAX_SAMPLE_SHEETS)]
    return sorted(
        {min(sheets, key=lambda path: abs(int(path.stem) - images_seen)) for images_seen in target_images},
        key=lambda path: int(path.stem),
    )
