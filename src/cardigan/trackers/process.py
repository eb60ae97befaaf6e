"""`cardigan train --track NAME`: one process per tracker follows the run, so that no tracker can stop or slow it down.

The training starts the processes and tells them, by closing their standard input, that it has ended.
"""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cardigan.errors import escape_control_characters
from cardigan.plugins import load_plugins
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import Event
from cardigan.trackers.follow import DEFAULT_PROJECT, TrackingOptions, failure_sentence, follow
from cardigan.trackers.position import tracker_folder
from cardigan.trackers.table import find_tracker

POLL_SECONDS = 2.0
RETRY_SECONDS = 60.0
"""Time until a tracker that worked before and has failed is tried again."""
FINISH_SECONDS = 120.0
"""How long the training waits at its end for what is still to be sent."""
LOCK_SECONDS = 600.0
"""How long a resumed training's process waits for that of the training before it."""
NICENESS = 10


@dataclass
class Follower:
    """A process that sends the run to one tracker."""

    run: Path
    options: TrackingOptions
    process: "subprocess.Popen[bytes]"
    is_reported: bool = False

    @property
    def has_failed(self) -> bool:
        return self.process.poll() not in {None, 0}

    def report_failure(self) -> None:
        """Write one line if the process has failed and that is not reported yet."""
        if not self.has_failed or self.is_reported:
            return
        self.is_reported = True
        log = tracker_folder(self.run, self.options.tracker) / "log.txt"
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        reason = lines[-1] if lines else f"exit code {self.process.returncode}"
        _warn(f"{reason.rstrip('.')}. The training is not affected. {self._later()}")

    def report_late(self) -> None:
        name = self.options.tracker
        _warn(f"The run is still being sent to {name}, by process {self.process.pid}. If that ends, {self._later()}")

    def _later(self) -> str:
        project = [] if self.options.project == DEFAULT_PROJECT else ["--track-project", self.options.project]
        command = shlex.join(["cardigan", "track", str(self.run), "--to", self.options.tracker, *project])
        return f"This sends what is missing: {command}"


@contextmanager
def tracking(
    trackers: Sequence[str],
    project: str,
    with_files: bool,
    with_samples: bool,
    on_event: Callable[[Event], None],
) -> Iterator[Callable[[Event], None]]:
    """Yield the event callback that also starts a process for each tracker at the first event of the run.

    Raises CardiganError before training if a tracker is unknown or not installed. Later nothing of a tracker is raised:
    one line on the standard error output says what went wrong.
    """
    choices = [TrackingOptions(name, project, with_files, with_samples) for name in dict.fromkeys(trackers)]
    for options in choices:
        find_tracker(options.tracker)
    followers: list[Follower] = []

    def forward(event: Event) -> None:
        if event.kind in {"start", "resume"} and not followers:
            followers.extend(_start_all(Path(event.values["run"]), choices))
        for follower in followers:
            follower.report_failure()
        on_event(event)

    try:
        yield forward
    finally:
        _finish(followers)


def _start_all(run: Path, choices: Sequence[TrackingOptions]) -> list[Follower]:
    followers = []
    for options in choices:
        try:
            followers.append(Follower(run, options, _start(run, options)))
        except OSError as error:
            _warn(f"{options.tracker} gets nothing of this run: its process cannot be started ({error.strerror}).")
    return followers


def _start(run: Path, options: TrackingOptions) -> "subprocess.Popen[bytes]":
    folder = tracker_folder(run, options.tracker)
    folder.mkdir(parents=True, exist_ok=True)
    words = [str(run), json.dumps(asdict(options))]
    with (folder / "log.txt").open("ab") as log:
        # A new session: Ctrl-C stops only the training, whose end the process then sends.
        process = subprocess.Popen(
            [sys.executable, "-m", "cardigan.trackers.process", *words],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    if os.name == "posix":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
    return process


def _finish(followers: Sequence[Follower]) -> None:
    """Tell the processes that the training has ended, and wait for what they still send."""
    for follower in followers:
        if follower.process.stdin is not None:
            with suppress(OSError):
                follower.process.stdin.close()
    deadline = time.monotonic() + FINISH_SECONDS
    for follower in followers:
        try:
            follower.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            follower.report_late()
        follower.report_failure()


def _warn(sentence: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads the error output any more
        sys.stderr.write(f"cardigan: {escape_control_characters(sentence)}\n")
        sys.stderr.flush()


def _follow_training(run: RunDirectory, options: TrackingOptions) -> int:
    """Send the run until the standard input ends. Return the exit code; the reason is the last line written."""
    has_ended, has_sent = threading.Event(), False

    def wait_for_end() -> None:
        while os.read(0, 4096):  # not through sys.stdin, whose lock would abort Python at its end
            pass
        has_ended.set()

    def wait_for_more() -> bool:
        nonlocal has_sent
        has_sent = True
        return not has_ended.wait(POLL_SECONDS)

    threading.Thread(target=wait_for_end, daemon=True).start()
    while True:
        is_last_try = has_ended.is_set()
        try:
            follow(run, options, wait_for_more, LOCK_SECONDS)
            return 0
        except Exception as error:  # noqa: BLE001 - a tracker may raise anything, and the training must not notice
            sys.stderr.write(f"{failure_sentence(options, error)}\n")
            sys.stderr.flush()
            if is_last_try or not has_sent:
                return 1
            has_ended.wait(RETRY_SECONDS)


if __name__ == "__main__":
    load_plugins()
    sys.exit(_follow_training(RunDirectory(Path(sys.argv[1])), TrackingOptions(**json.loads(sys.argv[2]))))
