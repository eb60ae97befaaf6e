"""Sends a run to one tracker, until the run ends or has no more events."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cardigan.errors import CardiganError
from cardigan.run.directory import RunDirectory, is_locked
from cardigan.run.journal import read_events
from cardigan.run.stopping import run_state
from cardigan.trackers.interface import Message, Moment, TrackedRun, Tracker
from cardigan.trackers.position import Position, read_positions, sender_lock, write_position
from cardigan.trackers.run_files import MAX_FILE_BYTES, run_files
from cardigan.trackers.sending import check_is_run, send_new_events, started_at
from cardigan.trackers.table import find_tracker

DEFAULT_PROJECT = "cardigan"


@dataclass(frozen=True)
class TrackingOptions:
    """To which tracker a run is sent, and what of it."""

    tracker: str
    project: str = DEFAULT_PROJECT
    with_files: bool = True
    """Whether the generator and the report are sent when the run has stopped."""
    with_samples: bool = True
    """Whether the sample sheets are sent. They show real images too."""


def follow(
    run: RunDirectory, options: TrackingOptions, wait_for_more: Callable[[], bool], lock_seconds: float = 0.0
) -> str:
    """Send what the tracker does not have yet, and return where the user sees it.

    `wait_for_more` is called after each round: it waits and returns True, or returns False if the run has ended. After
    that there is one last round. Another process that sends this run is waited for up to `lock_seconds`. Raises
    CardiganError if the tracker cannot be used, or any exception of the tracker. What was sent until then is not sent
    again.
    """
    tracker_type = find_tracker(options.tracker)
    check_is_run(run)
    with sender_lock(run.path, options.tracker, lock_seconds):
        key = f"{tracker_type.destination(run.path)} {options.project}"
        position = read_positions(run.path, options.tracker).get(key, Position())
        path = run.path.absolute()
        tracker = tracker_type.open(TrackedRun(path, path.name, options.project, position.run_id, started_at(run)))
        state = "training"
        try:
            position = replace(position, run_id=tracker.run_id, where=tracker.where)
            write_position(run.path, options.tracker, key, position)
            is_last_round = False
            while True:
                for sent in send_new_events(tracker, run, position, options.with_samples):
                    position = sent
                    write_position(run.path, options.tracker, key, position)
                if is_last_round:
                    break
                is_last_round = not wait_for_more()
            state = _state(run)
            if state not in {"training", "waiting"} and options.with_files:
                position = _send_files(tracker, run, position)
                write_position(run.path, options.tracker, key, position)
        finally:
            tracker.close(state)
    return tracker.where


def _state(run: RunDirectory) -> str:
    events = read_events(run.journal)
    return run_state(events[-1] if events else None, is_locked(run))[0]


def _send_files(tracker: Tracker, run: RunDirectory, position: Position) -> Position:
    """Send the files of a run that has stopped, unless they were sent at this state of it."""
    if position.files_images_seen == position.images_seen:
        return position
    with run_files(run) as paths:
        for path in paths:
            if path.stat().st_size <= MAX_FILE_BYTES:
                tracker.send_file(path)
            else:
                megabytes = f"{path.stat().st_size / 1e6:,.0f} MB, the limit is {MAX_FILE_BYTES / 1e6:,.0f} MB"
                moment = Moment(position.images_seen, run.journal.stat().st_mtime, position.num_events)
                tracker.send_message(moment, Message("note", f"{path.name} is not sent: {megabytes}", "", False))
    tracker.flush()
    return replace(position, files_images_seen=position.images_seen)


def failure_sentence(options: TrackingOptions, error: BaseException) -> str:
    """Return in one sentence why nothing more is sent."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
    return (
        reason if isinstance(error, CardiganError) else f"{options.tracker} failed ({type(error).__name__}: {reason})"
    )
