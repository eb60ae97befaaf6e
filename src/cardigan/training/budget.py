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
from cardigan.training.processes import Exchange, Processes

REASONS = ("", "images", "minutes", "patience", "health", "rollback", "SIGINT", "SIGTERM")
"""Why a run stopped; the first one means it goes on, and after a rollback it does too. Where processes have several, the last counts."""


@dataclass
class Clock:
    """Elapsed time of a run over all its resumptions."""

    started: float = field(default_factory=time.monotonic)
    before: float = 0.0
    """Seconds that earlier processes of the same run have spent."""

    def elapsed(self) -> float:
        return self.before + time.monotonic() - self.started


@dataclass
class Budget:
    """What a run may spend."""

    config: Config
    processes: Processes
    clock: Clock
    signalled: str = ""
    asked: str = ""
    """patience, health or rollback: what this process's recorder asks for."""
    _exchange: Exchange | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block, turn Ctrl-C and SIGTERM into a reason to stop after the current step; a second one acts as usual,
        unless there are several processes: torchrun repeats the signal to each, and ends by itself whoever does not come.

        Does nothing outside the main thread, where Python has no signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def remember(number: int, _: FrameType | None) -> None:
            self.signalled = signal.Signals(number).name
            if self.processes.world_size == 1:
                signal.signal(number, usual[signal.Signals(number)])

        for number in usual:
            signal.signal(number, remember)
        try:
            yield
        finally:
            for number, action in usual.items():
                signal.signal(number, action)

    def reason(self, images_seen: int, reserve_seconds: float) -> str:
        """Return why the run should stop now, or "" if it should not; `reserve_seconds` is what one more step and the saving will take.

        Every process counts the same images. Of time and signals they tell each other, and act on the answer one step later,
        so that no step waits for it.
        """
        if self.config.images is not None and images_seen >= self.config.images:
            return self.signalled if self.processes.world_size == 1 and self.signalled else "images"
        late = self.config.minutes is not None and self.clock.elapsed() + reserve_seconds >= self.config.minutes * 60
        reason = self.signalled or ("minutes" if late else self.asked)
        if self.processes.world_size == 1:
            return reason
        answered, self._exchange = self._exchange, self.processes.exchange(REASONS.index(reason))
        return REASONS[answered.result()] if answered is not None else ""

    def begin_anew(self) -> None:
        """Forget what was asked, in every process; called by all of them after a rollback."""
        self.asked = ""
        if self._exchange is not None:
            self._exchange.result()
            self._exchange = None
