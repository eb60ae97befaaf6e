"""What a person sees while a run trains: a live screen in a terminal, a plain line every few seconds elsewhere.

Reads events and the sample sheets in the run directory; can change nothing.
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

from cardigan.cli.halfblocks import preview
from cardigan.config import Config
from cardigan.figures.layout import SheetLayout
from cardigan.metrics.protocol import with_error
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import Event

PLAIN_SECONDS = 5.0
SCORES = {"mnist": ("distance", "to the test digits"), "stacked-mnist": ("divergence", "of the modes drawn from even ones")}
"""What a source's score is called, and what it is."""
WAITING = 0.1
"""A training that waits longer than this share of its time is held up by its data."""
MEANINGS = (
    ("discriminator_loss", "D loss", "what D pays for its errors"),
    ("generator_loss", "G loss", "what G pays for being found out"),
    ("d_real", "D(x)", "how real D finds real pictures; 0.5 is a guess"),
    ("d_fake", "D(G(z))", "how real it finds generated ones"),
    ("d_fake_after", "  after D's step", "the same pictures, once D has learned from them"),
    ("margin_real", "margin", "how much more real D finds real pictures; it has no scale"),
    ("augmentation", "augmented", "how likely each change is to what D sees"),
)
BRIEF = (
    *(("discriminator_loss", "D loss"), ("generator_loss", "G loss"), ("d_real", "D(x)"), ("d_fake", "D(G(z))")),
    ("margin_real", "margin"),
)


@contextmanager
def live_view(config: Config, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Yield what `train` reports its events to."""
    console = Console()
    if quiet:
        yield lambda event: None
    elif console.is_terminal:
        screen = Screen(config, console)
        with Live(screen.render(), console=console, refresh_per_second=4) as live:
            yield lambda event: live.update(screen.after(event))
    else:
        yield PlainLines(config).after


@dataclass
class Screen:
    """The live screen; redrawn after every event."""

    config: Config
    console: Console
    run: Path | None = None
    latest: dict[str, Any] = field(default_factory=dict)
    images_seen: int = 0
    elapsed: float = 0.0
    best: Event | None = None
    notes: list[str] = field(default_factory=list)
    pictures: RenderableType = ""

    def after(self, event: Event) -> RenderableType:
        """Return the screen once this event has happened."""
        self.images_seen, self.elapsed = event.images_seen, event.elapsed_seconds
        if event.kind == "reading":
            self.notes = [read_so_far(event)]
        elif event.kind in {"start", "resume"}:
            self.run = Path(event.values["run"])
            self.config = read_config(RunDirectory(self.run))
            self.notes = list(event.values.get("messages", []))
        elif event.kind == "note":
            self.notes = [*self.notes, *event.values["messages"]][-3:]
        elif event.kind == "progress":
            self.latest = event.values
        elif event.kind == "samples":
            self.pictures = self._preview(event)
        elif event.kind in {"fault", "rollback"}:
            self.notes = [*self.notes, told(event)][-3:]
        elif event.kind == "checkpoint" and "score" in event.values and (self.best is None or event.values["score"] < self.best.values["score"]):
            self.best = event
        return self.render()

    def render(self) -> RenderableType:
        numbers = Table.grid(padding=(0, 2))
        for name, label, meaning in MEANINGS:
            if name in self.latest:
                numbers.add_row(label, f"{self.latest[name]:7.3f}", Text(meaning, style="dim"))
        if self.best is not None:
            name, meaning = score_words(self.config)
            numbers.add_row(name, score_text(self.best), Text(f"best so far, {meaning}", style="dim"))
        bar = Table.grid()  # a bare bar ends without a line break
        bar.add_row(ProgressBar(total=1.0, completed=done(self.config, self.images_seen, self.elapsed), width=min(60, self.console.width - 2)))
        return Group(
            Text(f"cardigan · {self.config.recipe} · {self.run or 'starting'}", style="bold"),
            bar,
            Text(pace(self.config, self.images_seen, self.elapsed, self.latest)),
            numbers,
            *(Text(note, style="yellow") for note in self.notes),
            self.pictures,
        )

    def _preview(self, event: Event) -> RenderableType:
        if self.run is None:
            return ""
        layout = SheetLayout(int(event.values["num_samples"]), self.config.data.height, self.config.data.width)
        room = self.console.height - 12 - len(self.notes)
        colour = self.console.color_system is not None and not self.console.no_color
        return preview(self.run / event.values["file"], layout, self.console.width, room, colour)


@dataclass
class PlainLines:
    """For logs: one line at most every few seconds."""

    config: Config
    last: float = float("-inf")

    def after(self, event: Event) -> None:
        if event.kind == "reading" and (event.elapsed_seconds - self.last >= PLAIN_SECONDS or event.values["done"] == event.values["of"]):
            self.last = event.elapsed_seconds
            print(f"cardigan: {read_so_far(event)}", flush=True)
        elif event.kind in {"start", "resume"}:
            self.config, self.last = read_config(RunDirectory(Path(event.values["run"]))), float("-inf")
            verb = "training" if event.kind == "start" else f"going on from {event.images_seen:,} images"
            print(f"cardigan: {verb}, recipe {self.config.recipe}, in {event.values['run']}", flush=True)
            for message in event.values.get("messages", []):
                print(f"cardigan: {message}", flush=True)
        elif event.kind == "note":
            for message in event.values["messages"]:
                print(f"cardigan: {message}", flush=True)
        elif event.kind == "progress" and event.elapsed_seconds - self.last >= PLAIN_SECONDS:
            self.last = event.elapsed_seconds
            numbers = " ".join(f"{label} {event.values[name]:.3f}" for name, label in BRIEF if name in event.values)
            print(f"{pace(self.config, event.images_seen, event.elapsed_seconds, event.values)} | {numbers}", flush=True)
        elif event.kind in {"fault", "rollback"}:
            print(f"cardigan: {told(event)}", flush=True)
        elif event.kind == "checkpoint" and "score" in event.values:
            print(f"{event.images_seen:,} images: {' '.join(score_words(self.config))} {score_text(event)}", flush=True)


def read_so_far(event: Event) -> str:
    """Return how far the pictures are decoded, and how fast."""
    done, of = event.values["done"], event.values["of"]
    speed = done / max(event.elapsed_seconds - event.values["since"], 1e-9)
    return f"decoding pictures, once for all: {done:,} of {of:,}, {speed:,.0f} a second"


def score_text(event: Event) -> str:
    """Return a judged checkpoint's score with its standard error."""
    score, error = event.values["score"], event.values.get("score_error")
    return f"{score:.3g}" if error is None else with_error(score, error)


def score_words(config: Config) -> tuple[str, str]:
    return SCORES.get(config.data.source, ("score", "the lower the better"))


def told(event: Event) -> str:
    """Return a fault or a rollback in words."""
    values = event.values
    if event.kind == "fault":
        return f"{values['name']} at {event.images_seen:,} images: {values['words']}. {values['advice']}"
    why = f" ({values['fault']}: {values['words']})" if "fault" in values else ""
    factor = values["learning_rate_factor"]
    back = f"back from {values['left_at']:,} to the best checkpoint, {event.images_seen:,} images{why}"
    return f"{back}; learning rates are now {factor:g} of the config's."


def done(config: Config, images_seen: int, elapsed: float) -> float:
    """Return the share of the budget that is spent, 0..1."""
    shares = [images_seen / config.images] if config.images is not None else []
    shares += [elapsed / (config.minutes * 60)] if config.minutes is not None else []
    return min(1.0, max(shares, default=0.0))


def pace(config: Config, images_seen: int, elapsed: float, values: dict[str, Any]) -> str:
    """Return how far, how fast, how long still, in one line."""
    speed = float(values.get("images_per_second", 0.0))
    remaining = [] if config.minutes is None else [config.minutes * 60 - elapsed]
    if config.images is not None and speed:
        remaining.append((config.images - images_seen) / speed)
    ahead = f", {clock(max(0.0, min(remaining)))} to go" if remaining else ""
    total = f" of {config.images:,}" if config.images is not None else ""
    waiting = float(values.get("waiting_for_data", 0.0))
    slow = f", {waiting:.0%} of the time spent waiting for pictures" if waiting > WAITING else ""
    return f"{images_seen:,}{total} images, {speed:,.0f} images/s{slow}, {clock(elapsed)} so far{ahead}"


def clock(seconds: float) -> str:
    """Return a duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
