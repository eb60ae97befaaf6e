"""What `cardigan.train` returns: a finished run, with its model, its history and its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardigan.config import Config
from cardigan.health.status import health_of_run
from cardigan.inference import preview
from cardigan.inference.arguments import LabelsLike
from cardigan.inference.model import Model, load
from cardigan.report.build import write_report
from cardigan.run.checkpoint import best_checkpoint
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import Event, read_events
from cardigan.run.stopping import REASON_SENTENCES


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training run, as `train` returns it.

    Examples:
        >>> import cardigan
        >>> small = {"generator.width": 4, "discriminator.width": 4}
        >>> run = cardigan.train("mnist", images=32, size=16, batch_size=16, overrides=small)
        >>> run.images_seen, run.config.batch_size
        (32, 16)
        >>> [event.kind for event in run.events][-1]
        'stop'
    """

    path: Path
    """The run directory."""
    config: Config
    """All settings of the run."""
    images_seen: int
    """Training images seen, counted as often as they were seen."""
    stopped_by: str
    """One of images, minutes, patience, target, failure, SIGINT or SIGTERM. Empty if the run has not stopped."""

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Return the run of an earlier training, or of one that still goes on, from its directory.

        `path` is the run directory. Of a run that goes on, or was killed, `stopped_by` is "". Raises CardiganError for
        a folder that is no run.

        Examples:
            >>> import cardigan
            >>> cardigan.Run.open("runs/first").images_seen
            64
        """
        run = RunDirectory(Path(path))
        config, events = read_config(run), read_events(run.journal)
        last = events[-1] if events else None
        stopped_by = str(last.values["reason"]) if last is not None and last.kind == "stop" else ""
        return cls(run.path, config, 0 if last is None else last.images_seen, stopped_by)

    @property
    def model(self) -> Model:
        """The trained generator: of the best checkpoint if the run was stopped because it got worse, else the last."""
        return load(self.path)

    def sample(
        self, num_samples: int = 16, seed: int = 0, labels: LabelsLike | None = None, truncation: float = 1.0
    ) -> np.ndarray:
        """Return images as uint8 [num_samples, height, width, channels].

        `num_samples`, `seed`, `labels` and `truncation` are those of `Model.sample`.
        """
        return self.model.sample(num_samples, seed, labels, truncation)

    @property
    def events(self) -> list[Event]:
        """All events of the run's journal, in order."""
        return read_events(RunDirectory(self.path).journal)

    @property
    def history(self) -> Any:
        """One row for each progress line and checkpoint: images seen, seconds, losses, score and other metrics.

        A pandas DataFrame if pandas is installed, else a list of dicts. Metrics that a row does not have are left out.
        """
        rows = [
            {"images_seen": event.images_seen, "seconds": event.elapsed_seconds, "kind": event.kind, **event.values}
            for event in self.events
            if event.kind in {"progress", "checkpoint"}
        ]
        try:
            from pandas import DataFrame
        except ImportError:
            return rows
        return DataFrame(rows)

    @property
    def score(self) -> float | None:
        """The last score (lower is better), or None if no checkpoint was scored."""
        scores = [event.values["score"] for event in self.events if "score" in event.values]
        return float(scores[-1]) if scores else None

    @property
    def best(self) -> Path | None:
        """The folder of the checkpoint with the best score, or None without scores. `cardigan.load` reads it."""
        best = best_checkpoint(RunDirectory(self.path).checkpoints)
        return best if best is not None and int(best.name) > 0 else None

    def report(self) -> Path:
        """Evaluate the run, write `report.html`, and return its path. Takes a minute or two."""
        return write_report(RunDirectory(self.path))

    def __repr__(self) -> str:
        score, best = self.score, self.best
        return "\n".join(
            [
                f"Run {self.path}: recipe {self.config.recipe}, {self.images_seen:,} images",
                f"  {REASON_SENTENCES.get(self.stopped_by, 'Not stopped: it trains, or was killed')}",
                f"  score    {'none' if score is None else f'{score:.2f}'} (lower is better; best checkpoint: "
                f"{'none' if best is None else f'{int(best.name):,} images'})",
                f"  health   {health_of_run(self.events).sentence}",
                "  next     .sample(), .model, .history, .report()",
            ]
        )

    def _repr_png_(self) -> bytes | None:
        return preview.run_preview(self.path)

    def _repr_html_(self) -> str:
        caption = (
            f"Run({self.path}: {self.config.recipe}, {self.images_seen:,} images seen, "
            f"stopped by {self.stopped_by}; generated | real)"
        )
        return preview.figure_html(preview.run_preview(self.path), caption)
