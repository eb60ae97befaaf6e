"""What a tracker offers: one run in it, to which scalars, images, messages and files are sent.

Knows no particular tracker.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SettingValue = bool | int | float | str


@dataclass(frozen=True)
class TrackedRun:
    """A run directory, and the run in the tracker that it is sent to."""

    path: Path
    name: str
    project: str
    run_id: str | None
    """The tracker's own name for the run. None if the tracker does not have the run yet."""
    started_at: float
    """When the training began, in Unix seconds."""


@dataclass(frozen=True)
class Moment:
    """When something happened: the x axis is `images_seen`."""

    images_seen: int
    unix_seconds: float
    event_number: int
    """Number of the event among those sent to this run of the tracker, from 1. It goes on after a resume."""


@dataclass(frozen=True)
class Message:
    """A text about the run: a fault, a rollback, a note, or why it stopped."""

    kind: str
    title: str
    text: str
    is_alert: bool
    """Whether the user should look at the run: faults and rollbacks."""


class Tracker(ABC):
    """One run in a tracker. Every method may raise any exception: the run's position then stays where it was."""

    run_id: str
    """What `TrackedRun.run_id` is when this run is continued."""
    where: str
    """Where the user sees the run: an address or a command."""

    @abstractmethod
    def send_settings(self, settings: Mapping[str, SettingValue]) -> None:
        """Send the settings by dotted name. A resumed run sends them again."""

    @abstractmethod
    def send_scalars(self, moment: Moment, scalars: Mapping[str, float]) -> None: ...

    @abstractmethod
    def send_image(self, moment: Moment, name: str, path: Path, caption: str) -> None: ...

    @abstractmethod
    def send_message(self, moment: Moment, message: Message) -> None: ...

    @abstractmethod
    def send_file(self, path: Path) -> None:
        """Send a file of the finished run. It may have been sent before, with another content."""

    @abstractmethod
    def rewind(self, moment: Moment) -> None:
        """Hide what was sent of later images, as far as the tracker can do that: the run continues from here."""

    @abstractmethod
    def flush(self) -> None:
        """Return once everything is written or in the hands of a process that sends it."""

    @abstractmethod
    def close(self, state: str) -> None:
        """End the connection. `state` is that of `cardigan.run.stopping.run_state`."""


@dataclass(frozen=True)
class TrackerType:
    """A line of the table `TRACKERS`."""

    package: str
    """The module that must be installed."""
    extra: str
    """What to install: `cardigan[extra]`, or a package's name."""
    destination: Callable[[Path], str]
    """Returns where a run directory's events go, without passwords. Another destination gets the run from its start."""
    open: Callable[[TrackedRun], Tracker]
    """Returns the run in the tracker; creates it if `run_id` is None."""
