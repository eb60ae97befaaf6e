"""The trackers by name. A plug-in adds a line."""

from importlib.util import find_spec

from cardigan.errors import CardiganError, unknown
from cardigan.trackers.interface import TrackerType
from cardigan.trackers.mlflow import mlflow_destination, open_mlflow
from cardigan.trackers.tensorboard import open_tensorboard, tensorboard_destination
from cardigan.trackers.trackio import open_trackio, trackio_destination
from cardigan.trackers.wandb import open_wandb, wandb_destination

TRACKERS = {
    "tensorboard": TrackerType("tensorboard", "cardigan[tensorboard]", tensorboard_destination, open_tensorboard),
    "wandb": TrackerType("wandb", "cardigan[wandb]", wandb_destination, open_wandb),
    "mlflow": TrackerType("mlflow", "cardigan[mlflow]", mlflow_destination, open_mlflow),
    "trackio": TrackerType("trackio", "cardigan[trackio]", trackio_destination, open_trackio),
}


def find_tracker(name: str) -> TrackerType:
    """Return the tracker with this name. Raises CardiganError if it is unknown or its package is missing."""
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    tracker = TRACKERS[name]
    if find_spec(tracker.package) is None:
        raise CardiganError(f"The tracker {name} needs the package {tracker.package}: pip install '{tracker.extra}'.")
    return tracker
