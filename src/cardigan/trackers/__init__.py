"""Sends a run's scalars, samples and faults to an experiment tracker, during training or afterwards."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.trackers.interface import Message, Moment, TrackedRun, Tracker, TrackerType
    from cardigan.trackers.table import TRACKERS

__all__ = ["TRACKERS", "Message", "Moment", "TrackedRun", "Tracker", "TrackerType"]

__getattr__, __dir__ = import_on_first_use(
    __name__,
    {
        "Message": "interface",
        "Moment": "interface",
        "TrackedRun": "interface",
        "Tracker": "interface",
        "TrackerType": "interface",
        "TRACKERS": "table",
    },
)
