"""Discriminator logits of the sample sheets: histograms over training, or the logits of one sheet.

They are read from the run's journal, not computed. The logits of some losses have no zero (`Loss.decision_boundary`):
those of each sheet are shown relative to its center.
"""

from typing import Any

import numpy as np

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.run.journal import Event
from cardigan.studio.journal_tail import finite_number
from cardigan.studio.run_series import RunSeries
from cardigan.studio.runs_folder import NotFound

BINS = 40
MAX_HISTOGRAMS = 400
MAX_LOGITS = 4_096
TAIL_PERCENT = 0.5
"""Percentage of logits clipped into the outermost bin on either side, so that outliers do not widen the histogram."""


def event_logits(event: Event, name: str) -> list[float]:
    """Return the list `name` of an event. Empty if it is missing or contains anything but finite numbers."""
    values = event.values.get(name)
    numbers = [finite_number(value) for value in values[:MAX_LOGITS]] if isinstance(values, list) else []
    return [] if None in numbers else [value for value in numbers if value is not None]


def sample_events(run_series: RunSeries) -> list[Event]:
    """Return the `samples` events that have logits."""
    return [
        event for event in run_series.other_events if event.kind == "samples" and event_logits(event, "fake_logits")
    ]


def decision_boundary(config: Config) -> float | None:
    """Return the logit above which D classifies an image as real; None for a loss without one or an unknown loss."""
    from cardigan.objective.losses import find_loss  # imports torch

    try:
        return find_loss(config.objective.loss).decision_boundary
    except CardiganError:  # a plug-in that is not installed here
        return None


def logit_center(real: list[float], fake: list[float]) -> float:
    """Return the midpoint of the mean real and the mean generated logit, or the only mean there is."""
    return float(np.mean([np.mean(logits) for logits in (real, fake) if logits]))


def real_above_fake(real: list[float], fake: list[float]) -> float | None:
    """Return the fraction of pairs in which the real image has the higher logit (0.5: D cannot tell), ties half."""
    if not real or not fake:
        return None
    ranks = [np.searchsorted(np.sort(fake), real, side) for side in ("left", "right")]
    return float(np.mean(ranks)) / len(fake)


def logit_histograms(run_series: RunSeries, boundary: float | None) -> dict[str, Any]:
    """Return histograms of the logits of generated and real images over training, with the same bins for all.

    Without a decision boundary, the logits of each sheet are relative to its center.
    """
    events = sample_events(run_series)
    events = (
        events
        if len(events) <= MAX_HISTOGRAMS
        else [events[round(position)] for position in np.linspace(0, len(events) - 1, MAX_HISTOGRAMS)]
    )
    logits = [(event, event_logits(event, "real_logits"), event_logits(event, "fake_logits")) for event in events]
    if not logits:
        return {"edges": [], "history": [], "decision_boundary": boundary}
    if boundary is None:
        logits = [(event, *_centered(real, fake)) for event, real, fake in logits]
    all_logits = np.array([value for _, real, fake in logits for value in (*real, *fake)])
    low, high = (float(value) for value in np.percentile(all_logits, [TAIL_PERCENT, 100 - TAIL_PERCENT]))
    edges = np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 1, low + 1, BINS + 1)
    history = [
        {
            "images_seen": event.images_seen,
            "real": _bin_counts(real, edges),
            "fake": _bin_counts(fake, edges),
            "real_mean": float(np.mean(real)) if real else None,
            "fake_mean": float(np.mean(fake)),
            "real_above_fake": real_above_fake(real, fake),
            **{
                f"{kind}_classified_real": None if boundary is None else fraction_above(values, boundary)
                for kind, values in (("real", real), ("fake", fake))
            },
        }
        for event, real, fake in logits
    ]
    return {"edges": edges.tolist(), "history": history, "decision_boundary": boundary}


def fraction_above(logits: list[float], boundary: float) -> float | None:
    """Return the fraction of logits above a boundary, None without logits."""
    return float(np.mean(np.array(logits) > boundary)) if logits else None


def _centered(real: list[float], fake: list[float]) -> tuple[list[float], list[float]]:
    center = logit_center(real, fake)
    return [value - center for value in real], [value - center for value in fake]


def _bin_counts(logits: list[float], edges: np.ndarray) -> list[int]:
    return np.histogram(np.clip(logits, edges[0], edges[-1]), edges)[0].tolist()


def logits_at(run_series: RunSeries, images_seen: int) -> dict[str, Any]:
    """Return the logits of one sheet, in the order of its tiles. Raises NotFound if the journal has none."""
    event = next((event for event in reversed(sample_events(run_series)) if event.images_seen == images_seen), None)
    if event is None:
        raise NotFound(f"The journal has no discriminator logits at {images_seen:,} images.")
    return {"fake": event_logits(event, "fake_logits"), "real": event_logits(event, "real_logits")}
