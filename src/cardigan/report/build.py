"""Build a run's report: `report.html` for readers and `report.json` for programs.

Reads runs, never trains. `report/page.py` lays the page out.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardigan.config import STACKED_MNIST, Config
from cardigan.errors import CardiganError
from cardigan.figures.curves import Line, line_chart
from cardigan.figures.grid import neighbor_grid, png_bytes
from cardigan.figures.layout import GridLayout
from cardigan.files.atomic import write_bytes
from cardigan.health.status import FATAL, NOTHING_FOUND, WARNING, health_of_run
from cardigan.metrics.evaluate import OnMetric, evaluate, generator_sampler, worst_pairs
from cardigan.metrics.protocol import MetricValue, Report
from cardigan.metrics.reference_loader import load_reference
from cardigan.models.snapshot import Snapshot, read_snapshot
from cardigan.objective.losses import find_loss
from cardigan.overrides import flatten
from cardigan.report.page import Figure, ReportMetric, ReportPage, render_page
from cardigan.report.sheets import num_generated, sample_sheets, sheet_halves
from cardigan.run.directory import RunDirectory, is_locked, read_config, read_provenance
from cardigan.run.journal import Event, read_events
from cardigan.run.stopping import resume_command, run_state, state_sentence

PROBABILITY_TITLE = "D's probability that an image is real"
PAIRWISE_TITLE = "D's probability that an image is the real one of a pair"
"""Titles of the chart of probabilities, the second for losses that compare real with generated images."""
AUGMENTATION_TITLE = "augmentation probability"
CHARTS = (
    ("losses", (("discriminator_loss", "D"), ("generator_loss", "G"))),
    (PROBABILITY_TITLE, (("d_real", "real"), ("d_fake", "generated"))),
    ("logit margin", (("margin_real", "real"), ("margin_fake", "generated"))),
    (AUGMENTATION_TITLE, (("augment_probability", "probability"),)),
    ("diversity (1: generated images vary as much as real ones)", (("diversity", "diversity"),)),
    ("gradient norm", (("discriminator_gradient_norm", "D"), ("generator_gradient_norm", "G"))),
    ("images per second", (("images_per_second", "speed"),)),
)
PENALTY_LABELS: dict[str, str] = {"r1": "R1", "r2": "R2", "wgan_gp": "WGAN-GP", "dragan": "DRAGAN"}
QUICK_SAMPLES, FULL_SAMPLES = 2_000, 10_000
QUICK_METRICS = {"mnist": ("frechet", "classes"), STACKED_MNIST: ("stacked_mnist",)}
"""Metrics of the report at the end of training, by source. They take seconds; `cardigan report` computes all."""
NOT_EVALUATED = (
    "Not evaluated yet, because that takes a minute or two: run cardigan report on this folder. "
    "The scores on this page are quick scores."
)
HEALTH_LEVELS = {NOTHING_FOUND: "nothing", WARNING: "warning", FATAL: "fatal"}
DIRECTION_NOTES = {"higher": "higher is better", "lower": "lower is better", "neither": ""}


@dataclass(frozen=True)
class Evaluation:
    """The evaluation in a report. `metrics` is empty if there is none; `protocol` then gives the reason."""

    images_seen: int
    metrics: Mapping[str, MetricValue]
    protocol: str
    neighbors: Figure | None = None
    """The samples nearest to training images, paired with those."""


def write_report(
    run: RunDirectory,
    snapshot: Snapshot | None = None,
    full: bool = True,
    evaluated: bool = True,
    on_metric: OnMetric | None = None,
) -> Path:
    """Evaluate the run's generator, write `report.json` and `report.html`, and return the path of the page.

    `full` computes every metric and its real baseline on 10,000 samples, which takes a minute or two. Otherwise the
    quick metrics are computed on 2,000 samples, or none if `evaluated` is off. `on_metric` is called before each
    metric. Raises CardiganError if the folder is not a run.
    """
    config, snapshot = read_config(run), snapshot or read_snapshot(run.path)
    evaluation = (
        evaluate_run(snapshot, config, full, run.path, on_metric)
        if evaluated
        else Evaluation(snapshot.images_seen, {}, NOT_EVALUATED)
    )
    events = read_events(run.journal)
    if not events:
        raise CardiganError(f"{run.path} has no journal yet: wait for its first step.")
    write_bytes(run.report, json.dumps(evaluation_json(evaluation), indent=1).encode())
    path = run.path / "report.html"
    write_bytes(path, render_page(_report_page(run, config, events, evaluation)).encode())
    return path


def evaluate_run(
    snapshot: Snapshot,
    config: Config,
    full: bool,
    model: Path | None = None,
    on_metric: OnMetric | None = None,
) -> Evaluation:
    """Return the evaluation of a snapshot. It has no metrics if no reference is available."""
    images_seen = snapshot.images_seen
    if not full and config.data.source not in QUICK_METRICS:
        return Evaluation(images_seen, {}, NOT_EVALUATED)
    try:
        reference = load_reference(config, model)
    except CardiganError as error:
        return Evaluation(images_seen, {}, str(error))
    sampler = generator_sampler(snapshot, reference, config.seed)
    metrics, count = (None, FULL_SAMPLES) if full else (QUICK_METRICS[config.data.source], QUICK_SAMPLES)
    report = evaluate(sampler, reference, num_samples=count, metrics=metrics, baseline=full, on_metric=on_metric)
    neighbors = None
    if report.worst.get("memorized"):
        neighbors = Figure(
            png_bytes(neighbor_grid(*worst_pairs(report, sampler, reference))),
            "The samples nearest to a training image (left of each pair), and that image (right).",
        )
    return Evaluation(images_seen, report.metrics, _protocol_line(report), neighbors)


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of `report.json`."""
    return {
        "images_seen": evaluation.images_seen,
        "metrics": [
            {
                "key": name,
                "value": metric.value,
                "standard_error": metric.standard_error,
                "real_baseline": metric.real_baseline,
                "real_baseline_error": metric.real_baseline_error,
                "real_baseline_samples": metric.real_baseline_samples,
                "num_samples": metric.num_samples,
            }
            for name, metric in evaluation.metrics.items()
        ],
        "protocol": evaluation.protocol,
    }


def _protocol_line(report: Report) -> str:
    protocol = report.protocol
    missing = " ".join(f"{name} is unavailable: {reason}" for name, reason in report.unavailable.items())
    return (
        f"{protocol.num_samples:,} samples of seed {protocol.seed} ({protocol.image_resize}) "
        f"against {protocol.num_reference:,} of {protocol.reference} {protocol.reference_split}; "
        f"extractor {protocol.extractor} {protocol.extractor_sha256[:12]}, resizer {protocol.extractor_resize}, "
        f"cardigan {protocol.cardigan_version}. Reference {protocol.reference_sha256[:12]}. {missing}"
    ).strip()


def _report_page(run: RunDirectory, config: Config, events: Sequence[Event], evaluation: Evaluation) -> ReportPage:
    provenance, last, health = read_provenance(run), events[-1], health_of_run(events)
    state, reason = run_state(last, is_locked(run))
    command = provenance.get("command", [])
    generated, real = sample_figures(run, config, events)
    return ReportPage(
        title=run.path.absolute().name,
        subtitle=f"Cardigan report: recipe {config.recipe}, data {config.data.source}",
        state=f"{state_sentence(state, reason)}.",
        health=health.sentence,
        health_level=HEALTH_LEVELS.get(health.state, ""),
        readings=readings(events),
        faults=[fault_text(event) for event in events if event.kind == "fault"],
        samples=generated,
        real=real,
        metrics=[
            ReportMetric(
                name,
                f"{metric.value:.4g}",
                "" if metric.standard_error is None else f"{metric.standard_error:.2g}",
                metric.baseline_text,
                DIRECTION_NOTES[metric.better],
            )
            for name, metric in evaluation.metrics.items()
        ],
        protocol=evaluation.protocol,
        neighbors=evaluation.neighbors,
        charts=journal_charts(events, config),
        command=shlex.join(["cardigan", *command[1:]]),
        resume="" if state == "training" else resume_command(run.path, command, config, last.images_seen, reason),
        settings=flatten(config),
        environment={name: value for name, value in provenance.items() if name != "command"},
    )


def sample_figures(run: RunDirectory, config: Config, events: Sequence[Event]) -> tuple[list[Figure], Figure | None]:
    """Return generated images at a few times, the newest first, and the real images of the newest sheet."""
    counts = [event.values.get("num_samples") for event in events if event.kind == "samples"]
    layout = GridLayout(num_generated(counts, min(config.batch_size, 64)), config.data.height, config.data.width)
    halves = [(path, *sheet_halves(path, layout)) for path in sample_sheets(run)]
    real = next((Figure(png, "training images") for _, _, png in halves if png is not None), None)
    return [Figure(png, f"after {int(path.stem):,} images") for path, png, _ in halves], real


def fault_text(event: Event) -> str:
    values = event.values
    return f"{values.get('name')} at {event.images_seen:,} images: {values.get('message')}. {values.get('advice')}"


def readings(events: Sequence[Event]) -> dict[str, str]:
    """Return the numbers at the top of the page: how far the run got, and its best and last score."""
    last, scores = events[-1], trained_scores(events)
    rows = {"images seen": f"{last.images_seen:,}", "time": duration_text(last.elapsed_seconds)}
    if scores:
        best = min(scores, key=lambda event: event.values["score"])
        rows["best score"] = f"{best.values['score']:.4g} at {best.images_seen:,} images"
        rows["last score"] = f"{scores[-1].values['score']:.4g}, lower is better"
    return rows


def trained_scores(events: Sequence[Event]) -> list[Event]:
    """Return the checkpoints with a score. An untrained network is not the best of anything."""
    return [
        event for event in events if event.kind == "checkpoint" and "score" in event.values and event.images_seen > 0
    ]


def duration_text(seconds: float) -> str:
    """Return a duration as 45 s, 12 min or 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"


def journal_charts(events: Sequence[Event], config: Config) -> list[str]:
    """Return a chart for each group of values in the journal, the score first. What is off has no chart."""
    charts_html = [score_chart(trained_scores(events))]
    progress = [event for event in events if event.kind == "progress"]
    penalties = [
        (name, PENALTY_LABELS.get(name, name)) for name, factor in config.objective.penalties.items() if factor
    ]
    is_pairwise = find_loss(config.objective.loss).decision_boundary is None
    for title, names in (*CHARTS, ("penalties", penalties)):
        if title == AUGMENTATION_TITLE and not config.augment.operations:
            continue
        lines = [line for key, label in names if any((line := event_line(progress, key, label)).y)]
        is_pairwise_chart = is_pairwise and title == PROBABILITY_TITLE
        charts_html += [line_chart(PAIRWISE_TITLE if is_pairwise_chart else title, lines)] if lines else []
    return [chart for chart in charts_html if chart]


def score_chart(scored_events: Sequence[Event]) -> str:
    """Return the chart of the score with a ring around the best. A wide range gets a logarithmic axis."""
    if len(scored_events) < 2:
        return ""
    score = Line(
        "score",
        [float(event.images_seen) for event in scored_events],
        [float(event.values["score"]) for event in scored_events],
    )
    best = min(zip(score.x, score.y, strict=True), key=lambda point: point[1])
    title = f"score (lower is better; ring: the best, {best[1]:.4g})"
    return line_chart(title, [score], log_scale=max(score.y) > 20 * best[1] > 0, marked=best)


def event_line(events: Sequence[Event], key: str, label: str) -> Line:
    events_with_key = [event for event in events if key in event.values]
    return Line(
        label,
        [float(event.images_seen) for event in events_with_key],
        [float(event.values[key]) for event in events_with_key],
    )
