"""From a run's journal to a tracker: which events become scalars, images and messages.

Knows the journal, and no particular tracker.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cardigan.errors import CardiganError
from cardigan.overrides import flatten, from_dict
from cardigan.run.directory import RunDirectory, read_config_json
from cardigan.run.journal import REWIND_KINDS, Event, read_new_events
from cardigan.trackers.interface import Message, Moment, SettingValue, Tracker
from cardigan.trackers.position import Position

SAMPLES_CAPTION = "generated (left), real (right)"
PROVENANCE = ("cardigan_version", "torch_version", "python_version", "platform", "device", "arithmetic", "commit")
"""What is sent of the run's provenance. The command line is not, because it may contain private paths."""
EVENTS_PER_FLUSH = 200


def send_new_events(
    tracker: Tracker, run: RunDirectory, position: Position, with_samples: bool = True
) -> Iterator[Position]:
    """Send what the journal has gained since `position`. Yield the position after each few events, flushed.

    Events that a later resume or rollback undoes are left out, if both are new.
    """
    events = read_new_events(run.journal, position.offset)
    if not events:
        return
    start_seconds = run.journal.stat().st_mtime - events[-1][0].elapsed_seconds  # the journal has no times of day
    if position.offset == 0 or any(event.kind == "resume" for event, _ in events):
        tracker.send_settings(run_settings(run))
    for number, (event, offset) in enumerate(events, 1):
        event_number = position.num_events + 1
        moment = Moment(event.images_seen, start_seconds + event.elapsed_seconds, event_number)
        if event.kind in REWIND_KINDS and event.images_seen < position.images_seen:
            tracker.rewind(moment)
        _send_event(tracker, event, moment, sample_sheet(run, event) if with_samples else None)
        position = replace(position, images_seen=event.images_seen, num_events=event_number)
        if number % EVENTS_PER_FLUSH == 0 or number == len(events):
            tracker.flush()
            position = replace(position, offset=offset)
            yield position


def _send_event(tracker: Tracker, event: Event, moment: Moment, sheet: Path | None) -> None:
    scalars = event_scalars(event)
    if scalars:
        tracker.send_scalars(moment, scalars)
    if sheet is not None:
        tracker.send_image(moment, "samples", sheet, SAMPLES_CAPTION)
    for message in event_messages(event):
        tracker.send_message(moment, message)


def started_at(run: RunDirectory) -> float:
    """Return when the training began, in Unix seconds, as if it had never been interrupted."""
    events = read_new_events(run.journal, 0)
    return run.journal.stat().st_mtime - (events[-1][0].elapsed_seconds if events else 0.0)


def event_scalars(event: Event) -> dict[str, float]:
    """Return the finite numbers of a progress or checkpoint event by their names in the journal."""
    if event.kind not in {"progress", "checkpoint"}:
        return {}
    numbers = {
        name: float(value)
        for name, value in event.values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    return {**numbers, "elapsed_seconds": event.elapsed_seconds}


def sample_sheet(run: RunDirectory, event: Event) -> Path | None:
    """Return the sample sheet of an event, None if it has none."""
    path = run.sample_path(event.images_seen)
    return path if event.kind == "samples" and path.is_file() else None


def event_messages(event: Event) -> list[Message]:
    values = event.values
    if event.kind == "fault":
        text = f"{values.get('message')}. {values.get('advice')}"
        return [Message("fault", str(values.get("name")), text, is_alert=True)]
    if event.kind == "rollback":
        text = f"from {values.get('rolled_back_from')} images: {values.get('message', 'a fault')}"
        return [Message("rollback", f"rollback to {event.images_seen:,} images", text, is_alert=True)]
    if event.kind == "stop":
        return [Message("stop", f"stopped by {values.get('reason')}", "", is_alert=False)]
    if event.kind in {"start", "resume", "note"}:
        text = "\n\n".join(map(str, values.get("messages", ())))
        return [Message(event.kind, text, "", is_alert=False)] if text else []
    return []


def run_settings(run: RunDirectory) -> dict[str, SettingValue]:
    """Return all settings of a run by dotted name, and what is known of its machine."""
    content = read_config_json(run)
    provenance = content.get("provenance", {})
    known = {f"provenance.{name}": provenance[name] for name in PROVENANCE if provenance.get(name) is not None}
    return {name: _setting_value(value) for name, value in {**flatten(from_dict(content["config"])), **known}.items()}


def _setting_value(value: Any) -> SettingValue:
    return value if isinstance(value, SettingValue) else json.dumps(value)


def check_is_run(run: RunDirectory) -> None:
    """Raise CardiganError if the folder is not a run, or has no events yet."""
    read_config_json(run)
    if not run.journal.exists():
        raise CardiganError(f"{run.path} has no journal yet: wait for its first step.")
