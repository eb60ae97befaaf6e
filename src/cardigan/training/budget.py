"""When to stop: after a number of images, a time, or a signal. All processes of a run stop at the same step.

Does not know what stopping involves, only how long it is expected to take.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType

from cardigan.config import Config
from cardigan.data.prefetch import DataLost
from cardigan.training.distributed import AsyncMax, ProcessGroup
from cardigan.training.schedule import is_due

STOP_REASONS = ("", "images", "minutes", "patience", "failure", "rollback", "SIGINT", "SIGTERM", "target")
"""Reasons for stopping. "" means that the run continues, and it also continues after a rollback.

If processes have different reasons, the last in this list applies.
"""

MAX_INTERVAL = 16
INTERVAL_SECONDS = 1.0
"""Processes exchange their reasons for stopping after this many steps, or this much time if steps are slow."""


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

    def with_more(self, seconds: float) -> "Reserve":
        """Return the reserve for a stop that takes longer, since processes agree on it some steps later."""
        return replace(self, finish_seconds=self.finish_seconds + seconds, save_seconds=self.save_seconds + seconds)


MIN_TRAINING_FRACTION = 0.5
"""Training gets at least this fraction of a budget of minutes. Evaluations at the end give way."""


@dataclass
class Budget:
    """The limits of a run, and requests to stop it."""

    config: Config
    process_group: ProcessGroup
    clock: Clock
    is_waiting: Callable[[], bool] = lambda: False
    """Whether training waits for images, which may take long. A signal then ends the waiting."""
    received_signal: str = ""
    stop_request: str = ""
    """patience, target, failure or rollback, as this process's recorder requests."""
    training_started_at: float = 0.0
    """Elapsed seconds when this process started to train."""
    _pending: AsyncMax | None = None
    _interval: int = 1
    """Steps between two exchanges of the reasons."""
    _steps_left: int = 0

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
                if self.is_waiting():
                    raise DataLost("The run was stopped while it waited for images.")

        for number in previous_handlers:
            signal.signal(number, on_signal)
        try:
            yield
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)

    def stop_reason(self, images_seen: int, reserve: Reserve, step_seconds: float = 0.0) -> str:
        """Return why the run should stop now, or "".

        Every process counts the same images. They exchange the other reasons every few steps (`MAX_INTERVAL`, less if
        that takes longer than `INTERVAL_SECONDS`) and act on them one step later, so that no step waits. They also do
        after every checkpoint, so that a decision about its score does not depend on the time. Only the main process's
        clock counts.
        """
        is_single = self.process_group.world_size == 1
        if self.config.images is not None and images_seen >= self.config.images:
            return self.received_signal if is_single and self.received_signal else "images"
        if is_single:
            return self._own_reason(reserve)
        if self._pending is not None:
            (reason, milliseconds), self._pending = self._pending.results(), None
            self._interval = max(1, min(MAX_INTERVAL, round(INTERVAL_SECONDS * 1000 / max(1, milliseconds))))
            self._steps_left = self._interval - 1
            if reason:
                return STOP_REASONS[reason]
        is_checkpoint = is_due(self.config.checkpoint_every_images, images_seen - self.config.batch_size, images_seen)
        if self._steps_left > 0 and not is_checkpoint:
            self._steps_left -= 1
            return ""
        own_reason = self._own_reason(reserve.with_more(self._interval * step_seconds))
        self._pending = self.process_group.all_reduce_max_async(
            STOP_REASONS.index(own_reason), round(1000 * step_seconds)
        )
        return ""

    def _own_reason(self, reserve: Reserve) -> str:
        """Return the reason of this process. Only the main process's clock counts."""
        out_of_time = self.process_group.is_main and self._is_out_of_time(reserve)
        return self.received_signal or ("minutes" if out_of_time else self.stop_request)

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
        if self._pending is not None:
            self._pending.results()
            self._pending = None
