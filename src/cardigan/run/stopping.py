"""Whether a run trains, why it stopped, and the command that continues it.

Knows the run's last event and the command line that started it.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cardigan.config import Config
from cardigan.run.journal import Event

COMPLETED_REASONS = {"images", "minutes", "target"}
"""Stop reasons of a run that reached its goal."""
REASON_SENTENCES = {
    "images": "Finished",
    "minutes": "Finished: the time budget is spent",
    "target": "Finished: the score has reached --target-score twice in a row",
    "patience": "Stopped: the score has not improved for longer than --patience-images",
    "failure": "Stopped: the run failed (cardigan diagnose shows why)",
    "SIGINT": "Stopped by Ctrl-C",
    "SIGTERM": "Stopped by SIGTERM",
}
STATE_SENTENCES = {
    "training": "Training",
    "waiting": "Waiting for the first step",
    "interrupted": "Interrupted: the process was killed or ended by an error, and did not save its last steps",
}
REPLACED_OPTIONS = {"--out", "--images", "--minutes"}
"""Options with a value that a resume gives anew."""


def run_state(last_event: Event | None, is_locked: bool) -> tuple[str, str | None]:
    """Return a run's state (training, waiting, interrupted, finished or stopped) and its stop reason."""
    # after its stop event a run still holds the lock while it writes the report
    if is_locked and (last_event is None or last_event.kind != "stop"):
        return "training", None
    if last_event is None:
        return "waiting", None
    if last_event.kind != "stop":
        return "interrupted", None
    reason = str(last_event.values.get("reason"))
    return "finished" if reason in COMPLETED_REASONS else "stopped", reason


def state_sentence(state: str, reason: str | None) -> str:
    """Return the state and the reason in words, without a period."""
    return STATE_SENTENCES.get(state) or REASON_SENTENCES.get(reason or "", f"Stopped by {reason}")


def resume_command(path: Path, command: Sequence[str], config: Config, images_seen: int, reason: str | None) -> str:
    """Return the command that continues a run. `command` is the command line that started it.

    A spent budget is doubled. After a signal or a kill the old one is not spent yet.
    """
    if len(command) < 2 or command[1] != "train":
        return f"in Python: cardigan.train with the same arguments, out={str(path)!r} and resume=True"
    options: list[str] = []
    arguments = iter(command[2:])
    for argument in arguments:
        name, has_value, _ = argument.partition("=")
        if name in REPLACED_OPTIONS and not has_value:
            next(arguments, None)
        elif name not in REPLACED_OPTIONS and argument != "--resume":
            options.append(argument)
    return shlex.join(
        ["cardigan", "train", *options, "--out", str(path), "--resume", *_budget_options(config, images_seen, reason)]
    )


def _budget_options(config: Config, images_seen: int, reason: str | None) -> list[str]:
    images = config.images if config.images is None or reason != "images" else 2 * images_seen
    minutes = config.minutes if config.minutes is None or reason != "minutes" else 2 * config.minutes
    return [
        *([] if images is None else ["--images", str(images)]),
        *([] if minutes is None else ["--minutes", f"{minutes:g}"]),
    ]
