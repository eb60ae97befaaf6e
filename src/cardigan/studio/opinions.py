"""What D thought of the pictures on the sample sheets as the run went: histograms over time, or one moment picture by picture.

Reads the logits that training wrote into its journal; computes none.
"""

from typing import Any

import numpy as np

from cardigan.run.journal import Event
from cardigan.studio.journal import Track, number
from cardigan.studio.places import NotThere

BINS = 40
MAX_MOMENTS = 400
MAX_LOGITS = 4_096
OUTSIDE = 0.5
"""Percent of the logits at either end that share the outermost bin: one wild picture must not squeeze all others into the middle."""


def logits_of(event: Event, name: str) -> list[float]:
    """Return the numbers of a list in an event; empty where it is none."""
    values = event.values.get(name)
    found = [number(value) for value in values[:MAX_LOGITS]] if isinstance(values, list) else []
    return [] if None in found else [value for value in found if value is not None]


def told(track: Track) -> list[Event]:
    """Return the moments of which D's opinions are known."""
    return [event for event in track.others if event.kind == "samples" and logits_of(event, "logits_fake")]


def histograms(track: Track) -> dict[str, Any]:
    """Return D's logits of generated and real pictures over time, counted in the same bins at every moment."""
    events = told(track)
    events = events if len(events) <= MAX_MOMENTS else [events[round(place)] for place in np.linspace(0, len(events) - 1, MAX_MOMENTS)]
    both = [(event, logits_of(event, "logits_real"), logits_of(event, "logits_fake")) for event in events]
    if not both:
        return {"edges": [], "moments": [], "boundary": 0}
    everything = np.array([value for _, real, fake in both for value in (*real, *fake)])
    low, high = (float(value) for value in np.percentile(everything, [OUTSIDE, 100 - OUTSIDE]))
    edges = np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 1, low + 1, BINS + 1)
    moments = [
        {
            "images_seen": event.images_seen,
            "real": _counts(real, edges),
            "fake": _counts(fake, edges),
            "real_mean": float(np.mean(real)) if real else None,
            "fake_mean": float(np.mean(fake)),
        }
        for event, real, fake in both
    ]
    return {"edges": edges.tolist(), "moments": moments, "boundary": 0}


def _counts(logits: list[float], edges: np.ndarray) -> list[int]:
    return np.histogram(np.clip(logits, edges[0], edges[-1]), edges)[0].tolist()


def moment(track: Track, images_seen: int) -> dict[str, Any]:
    """Return D's logits at one moment, in the order of the sheet's tiles; raises NotThere where they are not known."""
    event = next((event for event in reversed(told(track)) if event.images_seen == images_seen), None)
    if event is None:
        raise NotThere(f"What D thought at {images_seen:,} images was not written down.")
    return {"fake": logits_of(event, "logits_fake"), "real": logits_of(event, "logits_real")}
