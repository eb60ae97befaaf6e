"""How `cardigan.train` shows its progress in Python: one line in a terminal, one live line and image in a notebook."""

import base64
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardigan.health.status import health_of_run
from cardigan.run.journal import Event

OnEvent = Callable[[Event], None]
WATCHED = ("progress", "samples", "checkpoint", "fault", "stop")
NOTEBOOK_PAUSE_SECONDS = 1.0


@dataclass
class ProgressText:
    """The state of a run in a few words, kept up to date by its events."""

    images_seen: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    score: float | None = None
    fault: str = ""
    _events: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        self.images_seen, self.seconds = event.images_seen, event.elapsed_seconds
        self.images_per_second = float(event.values.get("images_per_second", self.images_per_second))
        self.score = float(event.values["score"]) if "score" in event.values else self.score
        self._events.append(event)

    def __str__(self) -> str:
        score = "" if self.score is None else f", score {self.score:.2f}"
        minutes, seconds = divmod(int(self.seconds), 60)
        return (
            f"{self.images_seen:,} images, {minutes}:{seconds:02d}, {self.images_per_second:,.0f} images/s{score}, "
            f"{health_of_run(self._events).state}"
        )


def progress_callback(verbose: bool | None) -> OnEvent | None:
    """Return the function that shows each event, or None.

    True shows the progress, False does not, and None does in a terminal and in a notebook.
    """
    if verbose is False:
        return None
    display = _notebook_display()
    if display is not None:
        return NotebookProgress(display)
    return TerminalProgress() if verbose or sys.stderr.isatty() else None


@dataclass
class TerminalProgress:
    """One line on the standard error output: overwritten in a terminal, otherwise written at each checkpoint."""

    text: ProgressText = field(default_factory=ProgressText)

    def __call__(self, event: Event) -> None:
        if event.kind not in WATCHED:
            return
        self.text.add(event)
        end = "\n" if event.kind == "stop" else ""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{self.text}{end}")
        elif event.kind in {"checkpoint", "fault"}:
            sys.stderr.write(f"{self.text}\n")
        sys.stderr.flush()


@dataclass
class NotebookProgress:
    """Two outputs of a cell that are replaced as the run goes on: the line, and below it the newest sample sheet.

    Between two updates lies `pause_seconds`, so that fast steps do not fill the page with messages.
    """

    display: Callable[..., Any]
    pause_seconds: float = NOTEBOOK_PAUSE_SECONDS
    text: ProgressText = field(default_factory=ProgressText)
    _run: Path | None = None
    _sheet: Path | None = None
    """The newest sheet, unless it is shown already."""
    _handles: dict[str, Any] = field(default_factory=dict)
    _next_update: float = 0.0

    def __call__(self, event: Event) -> None:
        if event.kind in {"start", "resume"}:
            self._run = Path(event.values["run"])
        if event.kind not in WATCHED:
            return
        self.text.add(event)
        if event.kind == "samples" and self._run is not None:
            self._sheet = self._run / str(event.values["file"])
        if event.kind in {"fault", "stop"} or time.monotonic() >= self._next_update:
            self._update()

    def _update(self) -> None:
        self._next_update = time.monotonic() + self.pause_seconds
        self._show("line", {"text/plain": str(self.text)})
        if self._sheet is not None:
            png = base64.b64encode(self._sheet.read_bytes()).decode()
            self._show("sheet", {"image/png": png, "text/plain": f"{self._sheet.name}: generated | real"})
            self._sheet = None

    def _show(self, output: str, content: dict[str, str]) -> None:
        if output in self._handles:
            self._handles[output].update(content, raw=True)
        else:
            self._handles[output] = self.display(content, raw=True, display_id=True)


def _notebook_display() -> Callable[..., Any] | None:
    """Return IPython's `display` inside a notebook, else None."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython  # pyright: ignore[reportMissingImports] - only where a notebook has imported it
    from IPython.display import display  # pyright: ignore[reportMissingImports]

    shell = type(get_ipython())
    return display if any("ZMQ" in each.__name__ for each in shell.__mro__) else None
