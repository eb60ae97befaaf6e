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

from cardigan.cli.terminal_images import sheet_preview
from cardigan.config import Config
from cardigan.errors import escape_control_characters
from cardigan.figures.layout import GridLayout
from cardigan.metrics.protocol import format_with_error
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import Event

LINE_INTERVAL_SECONDS = 5.0
SCORE_NAMES = {
    "mnist": ("distance", "to the test digits"),
    "stacked-mnist": ("KL divergence", "of the modes from uniform"),
}
"""Name and meaning of the score, by source."""
SLOW_DATA_FRACTION = 0.1
"""Waiting for data longer than this fraction of the time is reported."""
METRIC_ROWS = (
    ("discriminator_loss", "D loss", "loss of the discriminator"),
    ("generator_loss", "G loss", "loss of the generator"),
    ("d_real", "D(x)", "D's mean probability that real images are real"),
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
    preview: RenderableType = ""

    def update(self, event: Event) -> RenderableType:
        """Return the screen after this event."""
        self.images_seen, self.elapsed = event.images_seen, event.elapsed_seconds
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
            self.preview = self._preview(event)
        elif event.kind in {"fault", "rollback"}:
            self.notes = [*self.notes, event_text(event)][-3:]
        elif (
            event.kind == "checkpoint"
            and "score" in event.values
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
            numbers.add_row(name, score_text(self.best_checkpoint), Text(f"best so far, {meaning}", style="dim"))
        progress_bar = Table.grid()  # a ProgressBar alone has no line break at its end
        progress_bar.add_row(
            ProgressBar(
                total=1.0,
                completed=budget_fraction(self.config, self.images_seen, self.elapsed),
                width=min(60, self.console.width - 2),
            )
        )
        return Group(
            Text(f"cardigan · {self.config.recipe} · {self.run or 'starting'}", style="bold"),
            progress_bar,
            Text(progress_text(self.config, self.images_seen, self.elapsed, self.latest_values)),
            numbers,
            *(Text(escape_control_characters(note), style="yellow") for note in self.notes),
            self.preview,
        )

    def _preview(self, event: Event) -> RenderableType:
        if self.run is None:
            return ""
        layout = GridLayout(int(event.values["num_samples"]), self.config.data.height, self.config.data.width)
        max_rows = self.console.height - 12 - len(self.notes)
        color = self.console.color_system is not None and not self.console.no_color
        return sheet_preview(self.run / event.values["file"], layout, self.console.width, max_rows, color)


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
            run = escape_control_characters(str(event.values["run"]))
            print(f"cardigan: {action}, recipe {self.config.recipe}, in {run}", flush=True)
            for message in event.values.get("messages", []):
                print(f"cardigan: {escape_control_characters(message)}", flush=True)
        elif event.kind == "note":
            for message in event.values["messages"]:
                print(f"cardigan: {escape_control_characters(message)}", flush=True)
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
            print(
                f"{event.images_seen:,} images: {' '.join(score_name_and_meaning(self.config))} {score_text(event)}",
                flush=True,
            )


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
