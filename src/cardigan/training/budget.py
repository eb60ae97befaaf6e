"""When to stop: enough images, enough time, or a signal. All processes of a run agree on it.

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
"""Why a run stopped; the first one means it goes on, and after a rollback it does too. Where processes have several, the last counts."""


@dataclass
class Clock:
    """Elapsed time of a run over all its resumptions."""

    started_at: float = field(default_factory=time.monotonic)
    earlier_seconds: float = 0.0
    """Seconds that earlier processes of the same run have spent."""

    def elapsed_seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.started_at


@dataclass
class Budget:
    """What a run may spend."""

    config: Config
    process_group: ProcessGroup
    clock: Clock
    received_signal: str = ""
    stop_request: str = ""
    """patience, failure or rollback: what this process's recorder asks for."""
    _pending_reason: AsyncMax | None = None

    @contextmanager
    def signal_handlers(self) -> Iterator[None]:
        """Inside the block, turn Ctrl-C and SIGTERM into a reason to stop after the current step; a second one acts as usual,
        unless there are several processes: torchrun repeats the signal to each, and ends by itself whoever does not come.

        Does nothing outside the main thread, where Python has no signals.
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

    def stop_reason(self, images_seen: int, reserve_seconds: float) -> str:
        """Return why the run should stop now, or "" if it should not; `reserve_seconds` is what one more step and the saving will take.

        Every process counts the same images. Of time and signals they tell each other, and act on the answer one step later,
        so that no step waits for it.
        """
        if self.config.images is not None and images_seen >= self.config.images:
            return self.received_signal if self.process_group.world_size == 1 and self.received_signal else "images"
        out_of_time = (
            self.config.minutes is not None
            and self.clock.elapsed_seconds() + reserve_seconds >= self.config.minutes * 60
        )
        reason = self.received_signal or ("minutes" if out_of_time else self.stop_request)
        if self.process_group.world_size == 1:
            return reason
        pending, self._pending_reason = (
            self._pending_reason,
            self.process_group.all_reduce_max_async(STOP_REASONS.index(reason)),
        )
        return STOP_REASONS[pending.result()] if pending is not None else ""

    def reset(self) -> None:
        """Forget what was asked, in every process; called by all of them after a rollback."""
        self.stop_request = ""
        if self._pending_reason is not None:
            self._pending_reason.result()
            self._pending_reason = None
