"""When to stop: after a number of images, a time, or a signal. All processes of a run stop at the same step.

Does not know what stopping involves, only how long it is expected to take.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from cardigan.config import Config
from cardigan.training.distributed import AsyncMax, ProcessGroup

STOP_REASONS = ("", "images", "minutes", "patience", "failure", "rollback", "SIGINT", "SIGTERM")
"""Reasons for stopping. "" means that the run continues, and it also continues after a rollback.

If processes have different reasons, the last in this list applies.
"""


@dataclass
class Clock:
    """Elapsed time of a run, including the processes before each resume."""

    started_at: float = field(default_factory=time.monotonic)
    earlier_seconds: float = 0.0
    """Seconds spent by earlier processes of the same run."""

    def elapsed_seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.started_at


@dataclass(frozen=True)
class Reserve:
    """The time that ending a run takes, and what training has already given up for evaluations. In seconds."""

    finish_seconds: float
    """One more step, the last samples, the last checkpoint, its evaluation and the report."""
    save_seconds: float
    """One more step and the last checkpoint, without samples, evaluation and an evaluated report."""
    evaluation_seconds: float = 0.0
    """Evaluations since training started."""


MIN_TRAINING_FRACTION = 0.5
"""Training gets at least this fraction of a budget of minutes. Evaluations at the end give way."""


@dataclass
class Budget:
    """The limits of a run, and requests to stop it."""

    config: Config
    process_group: ProcessGroup
    clock: Clock
    received_signal: str = ""
    stop_request: str = ""
    """patience, failure or rollback, as this process's recorder requests."""
    training_started_at: float = 0.0
    """Elapsed seconds when this process started to train."""
    _pending_reason: AsyncMax | None = None

    def start_training(self) -> None:
        self.training_started_at = self.clock.elapsed_seconds()

    @contextmanager
    def signal_handlers(self) -> Iterator[None]:
        """Inside the block, stop after the current step on Ctrl-C or SIGTERM.

        With one process, a second signal acts as usual. With several, torchrun repeats the signal to each process and
        kills those that do not stop. Does nothing outside the main thread, where Python has no signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous_handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def on_signal(number: int, _: FrameType | None) -> None:
            self.received_signal = signal.Signals(number).name
            if self.process_group.world_size == 1:
                signal.signal(number, previous_handlers[signal.Signals(number)])

        for number in previous_handlers:
            signal.signal(number, on_signal)
        try:
            yield
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)

    def stop_reason(self, images_seen: int, reserve: Reserve) -> str:
        """Return why the run should stop now, or "".

        Every process counts the same images. Processes exchange the other reasons and act on them one step later, so
        that no step waits.
        """
        if self.config.images is not None and images_seen >= self.config.images:
            return self.received_signal if self.process_group.world_size == 1 and self.received_signal else "images"
        reason = self.received_signal or ("minutes" if self._is_out_of_time(reserve) else self.stop_request)
        if self.process_group.world_size == 1:
            return reason
        pending, self._pending_reason = (
            self._pending_reason,
            self.process_group.all_reduce_max_async(STOP_REASONS.index(reason)),
        )
        return STOP_REASONS[pending.result()] if pending is not None else ""

    def _is_out_of_time(self, reserve: Reserve) -> bool:
        if self.config.minutes is None:
            return False
        budget_seconds, elapsed_seconds = self.config.minutes * 60, self.clock.elapsed_seconds()
        if elapsed_seconds + reserve.save_seconds >= budget_seconds:
            return True
        trained_seconds = (
            self.clock.earlier_seconds + elapsed_seconds - self.training_started_at - reserve.evaluation_seconds
        )
        return (
            elapsed_seconds + reserve.finish_seconds >= budget_seconds
            and trained_seconds >= MIN_TRAINING_FRACTION * budget_seconds
        )

    def reset(self) -> None:
        """Clear the request. Every process calls this after a rollback."""
        self.stop_request = ""
        if self._pending_reason is not None:
            self._pending_reason.result()
            self._pending_reason = None
