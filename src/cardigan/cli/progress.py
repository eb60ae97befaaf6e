"""Training progress: a live screen in a terminal, a plain line every few seconds elsewhere.

Reads events and the sample sheets in the run directory; changes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cardigan.cli.terminal_images import MIN_PREVIEW_ROWS, sheet_preview
from cardigan.config import STACKED_MNIST, Config
from cardigan.errors import escape_control_characters
from cardigan.figures.layout import GridLayout
from cardigan.health.status import HealthRecord, is_old
from cardigan.metrics.protocol import format_with_error
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import Event, read_events

LINE_INTERVAL_SECONDS = 5.0
SCORE_NAMES = {
    "mnist": ("fd_digits", "to the test digits"),
    STACKED_MNIST: ("KL divergence", "of the modes from uniform"),
}
"""Name and meaning of the score, by source."""
SLOW_DATA_FRACTION = 0.1
"""Waiting for data longer than this fraction of the time is reported."""
METRIC_ROWS = (
    ("discriminator_loss", "D loss", "loss of the discriminator"),
    ("generator_loss", "G loss", "loss of the generator"),
    ("d_real", "D(x)", "D's mean probability that real images are real (relativistic: the real one of a pair)"),
    ("d_fake", "D(G(z))", "the same for generated images"),
    ("d_fake_after_update", "  after D's step", "the same images, after D has learned from them"),
    ("margin_real", "margin", "how much higher D's logits are on real images; no fixed scale"),
    ("augment_probability", "augmented", "probability of each augmentation of D's input"),
)
LINE_METRICS = (
    *(("discriminator_loss", "D loss"), ("generator_loss", "G loss"), ("d_real", "D(x)"), ("d_fake", "D(G(z))")),
    ("margin_real", "margin"),
)


@contextmanager
def progress_view(config: Config, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Yield the callback for `train`'s events."""
    console = Console()
    if quiet:
        yield lambda event: None
    elif console.is_terminal:
        screen = ProgressScreen(config, console)
        with Live(screen.render(), console=console, refresh_per_second=4) as live:
            yield lambda event: live.update(screen.update(event))
    else:
        yield ProgressLines(config).update


@dataclass
class ProgressScreen:
    """The live screen, redrawn after every event."""

    config: Config
    console: Console
    run: Path | None = None
    latest_values: dict[str, Any] = field(default_factory=dict)
    images_seen: int = 0
    elapsed: float = 0.0
    best_checkpoint: Event | None = None
    notes: list[str] = field(default_factory=list)
    samples: Event | None = None
    health: HealthRecord = field(default_factory=HealthRecord)

    def update(self, event: Event) -> RenderableType:
        """Return the screen after this event."""
        self.images_seen, self.elapsed = event.images_seen, event.elapsed_seconds
        if event.kind == "resume":
            self.health = HealthRecord()
            for earlier in read_events(Path(event.values["run"]) / "journal.jsonl"):
                self.health.add(earlier)
        else:
            self.health.add(event)
        if event.kind == "decoding":
            self.notes = [decoding_progress_text(event)]
        elif event.kind in {"start", "resume"}:
            self.run = Path(event.values["run"])
            self.config = read_config(RunDirectory(self.run))
            self.notes = list(event.values.get("messages", []))
        elif event.kind == "note":
            self.notes = [*self.notes, *event.values["messages"]][-3:]
        elif event.kind == "progress":
            self.latest_values = event.values
        elif event.kind == "samples":
            self.samples = event
        elif event.kind in {"fault", "rollback"}:
            self.notes = [*self.notes, event_text(event)][-3:]
        elif (
            event.kind == "checkpoint"
            and "score" in event.values
            and event.images_seen > 0  # an untrained network is not the best of anything
            and (self.best_checkpoint is None or event.values["score"] < self.best_checkpoint.values["score"])
        ):
            self.best_checkpoint = event
        return self.render()

    def render(self) -> RenderableType:
        numbers = Table.grid(padding=(0, 2))
        for name, label, meaning in METRIC_ROWS:
            if name in self.latest_values:
                numbers.add_row(label, f"{self.latest_values[name]:7.3f}", Text(meaning, style="dim"))
        if self.best_checkpoint is not None:
            name, meaning = score_name_and_meaning(self.config)
            at = self.best_checkpoint.images_seen
            age = ", old" if is_old(at, self.images_seen) else ""
            numbers.add_row(
                name,
                score_text(self.best_checkpoint),
                Text(f"best so far, {meaning}, at {at:,} images{age}", style="dim"),
            )
        progress_bar = Table.grid()  # a ProgressBar alone has no line break at its end
        progress_bar.add_row(
            ProgressBar(
                total=1.0,
                completed=budget_fraction(self.config, self.images_seen, self.elapsed),
                width=min(60, self.console.width - 2),
            )
        )
        head = Group(
            Text(
                escape_control_characters(f"cardigan · {self.config.recipe} · {self.run or 'starting'}"), style="bold"
            ),
            progress_bar,
            Text(progress_text(self.config, self.images_seen, self.elapsed, self.latest_values)),
            Text(f"health: {self.health.status.sentence}"),
            numbers,
        )
        rows_left = self.console.height - 1 - len(self.console.render_lines(head))
        notes = self._notes(rows_left - (MIN_PREVIEW_ROWS if self.samples else 0))
        rows_left -= len(notes)
        return Group(head, *notes, *([self._preview(self.samples, rows_left)] if self.samples else []))

    def _notes(self, max_rows: int) -> list[Text]:
        """Return the last lines of the notes that fit, so that they leave room for the samples."""
        lines = [
            line
            for note in self.notes
            for line in Text(escape_control_characters(note), style="yellow").wrap(self.console, self.console.width)
        ]
        return lines[-max_rows:] if max_rows > 0 else []

    def _preview(self, event: Event, max_rows: int) -> RenderableType:
        if self.run is None:
            return ""
        layout = GridLayout(int(event.values["num_samples"]), self.config.data.height, self.config.data.width)
        color = self.console.color_system is not None and not self.console.no_color
        age = f"after {event.images_seen:,} images"
        return sheet_preview(self.run / event.values["file"], layout, self.console.width, max_rows, color, age)


@dataclass
class ProgressLines:
    """Progress for logs: at most one line every few seconds."""

    config: Config
    last_printed_at: float = float("-inf")

    def update(self, event: Event) -> None:
        if event.kind == "decoding" and (
            event.elapsed_seconds - self.last_printed_at >= LINE_INTERVAL_SECONDS
            or event.values["done"] == event.values["total"]
        ):
            self.last_printed_at = event.elapsed_seconds
            print(f"cardigan: {decoding_progress_text(event)}", flush=True)
        elif event.kind in {"start", "resume"}:
            self.config, self.last_printed_at = read_config(RunDirectory(Path(event.values["run"]))), float("-inf")
            action = "training" if event.kind == "start" else f"resuming at {event.images_seen:,} images"
            print(
                escape_control_characters(f"cardigan: {action}, recipe {self.config.recipe}, in {event.values['run']}"),
                flush=True,
            )
            for message in event.values.get("messages", []):
                print(escape_control_characters(f"cardigan: {message}"), flush=True)
        elif event.kind == "note":
            for message in event.values["messages"]:
                print(escape_control_characters(f"cardigan: {message}"), flush=True)
        elif event.kind == "progress" and event.elapsed_seconds - self.last_printed_at >= LINE_INTERVAL_SECONDS:
            self.last_printed_at = event.elapsed_seconds
            numbers = " ".join(
                f"{label} {event.values[name]:.3f}" for name, label in LINE_METRICS if name in event.values
            )
            print(
                f"{progress_text(self.config, event.images_seen, event.elapsed_seconds, event.values)} | {numbers}",
                flush=True,
            )
        elif event.kind in {"fault", "rollback"}:
            print(f"cardigan: {event_text(event)}", flush=True)
        elif event.kind == "checkpoint" and "score" in event.values:
            name, meaning = score_name_and_meaning(self.config)
            print(f"{event.images_seen:,} images: {name} {score_text(event)} ({meaning})", flush=True)


def decoding_progress_text(event: Event) -> str:
    """Return how many images are decoded, and how fast."""
    num_done, total = event.values["done"], event.values["total"]
    images_per_second = num_done / max(event.elapsed_seconds - event.values["started_at_seconds"], 1e-9)
    return f"decoding images (once, then cached): {num_done:,} of {total:,}, {images_per_second:,.0f} images/s"


def score_text(event: Event) -> str:
    """Return a checkpoint's score with its standard error."""
    score, error = event.values["score"], event.values.get("score_standard_error")
    return f"{score:.3g}" if error is None else format_with_error(score, error)


def score_name_and_meaning(config: Config) -> tuple[str, str]:
    return SCORE_NAMES.get(config.data.source, ("score", "lower is better"))


def event_text(event: Event) -> str:
    """Return the text of a fault or rollback event."""
    values = event.values
    if event.kind == "fault":
        return f"{values['name']} at {event.images_seen:,} images: {values['message']}. {values['advice']}"
    reason = f" ({values['fault']}: {values['message']})" if "fault" in values else ""
    factor = values["learning_rate_factor"]
    return (
        f"rolled back from {values['rolled_back_from']:,} to the best checkpoint at {event.images_seen:,} images"
        f"{reason}; learning rates are now {factor:g} times the config's."
    )


def budget_fraction(config: Config, images_seen: int, elapsed: float) -> float:
    """Return the fraction of the budget that is spent, 0..1."""
    fractions = [images_seen / config.images] if config.images is not None else []
    fractions += [elapsed / (config.minutes * 60)] if config.minutes is not None else []
    return min(1.0, max(fractions, default=0.0))


def progress_text(config: Config, images_seen: int, elapsed: float, values: dict[str, Any]) -> str:
    """Return images seen, speed, elapsed and remaining time as one line."""
    images_per_second = float(values.get("images_per_second", 0.0))
    remaining = [] if config.minutes is None else [config.minutes * 60 - elapsed]
    if config.images is not None and images_per_second:
        remaining.append((config.images - images_seen) / images_per_second)
    remaining_text = f", {duration_text(max(0.0, min(remaining)))} left" if remaining else ""
    total = f" of {config.images:,}" if config.images is not None else ""
    waiting_fraction = float(values.get("data_wait_fraction", 0.0))
    waiting_text = (
        f", {waiting_fraction:.0%} of the time spent waiting for images"
        if waiting_fraction > SLOW_DATA_FRACTION
        else ""
    )
    return (
        f"{images_seen:,}{total} images, {images_per_second:,.0f} images/s{waiting_text}, "
        f"{duration_text(elapsed)} elapsed{remaining_text}"
    )


def duration_text(seconds: float) -> str:
    """Return a duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
