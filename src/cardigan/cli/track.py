"""`cardigan track RUN --to TRACKER`: send a run to an experiment tracker, after training or during it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cardigan.cli.known_names import known_trackers, one_of
from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    """Send a run to an experiment tracker: metrics, sample sheets, faults, settings, and at its end the generator.

    What the tracker has already is not sent again. Nothing is sent to any other place.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory; it may still be training."""
    to: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(help=f"The tracker: {one_of(known_trackers())}. Repeat it for several."),
    ]
    track_project: str = "cardigan"
    """The project (wandb, trackio) or experiment (mlflow)."""
    track_files: bool = True
    """Send the best generator and the report of a run that has stopped."""
    track_samples: bool = True
    """Send the sample sheets, which show real images too."""
    follow: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep sending until the run's training has ended."""


FOLLOW_SECONDS = 2.0


def main(argv: list[str]) -> int:
    """Send the run; return the exit code."""
    options = parse(TrackOptions, argv, "cardigan track")

    from cardigan.run.directory import RunDirectory, is_locked
    from cardigan.trackers.follow import TrackingOptions, failure_sentence, follow
    from cardigan.trackers.table import find_tracker

    run = RunDirectory(options.run)
    for name in options.to:
        find_tracker(name)

    def wait_for_more() -> bool:
        if not (options.follow and is_locked(run)):
            return False
        time.sleep(FOLLOW_SECONDS)
        return True

    for name in dict.fromkeys(options.to):
        tracking = TrackingOptions(name, options.track_project, options.track_files, options.track_samples)
        try:
            print(f"{name:<12} {follow(run, tracking, wait_for_more)}")
        except CardiganError:
            raise
        except Exception as error:
            raise CardiganError(
                f"{failure_sentence(tracking, error)}: the same command sends what is missing."
            ) from error
    return 0
