"""Signs of life between the processes of a run: a process that has stopped, hung or lost its network is named in time.

Every process writes a counter to the shared store. The main process watches all of them, the others watch the main
one. A pause of the training step (evaluation, saving) does not stop the signs. Does not know collectives.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

BEAT_SECONDS = 1.0
"""Time between two signs of life; a tenth of the timeout if that is shorter."""
EXIT_SECONDS = 5.0
"""How long the main thread may take to end by itself after a loss."""
GOODBYE = "left"
LOST_KEY = "lost"


@dataclass
class Heartbeat:
    """The signs of life of this process and of those it watches."""

    store: Any
    """A PyTorch store with a connection of its own: a connection serves one request at a time, and one may hang."""
    rank: int
    hosts: Sequence[str]
    """The host of every process."""
    timeout_seconds: float
    may_hang: bool = False
    """Whether the main thread may be stuck in a call that nothing ends (a GPU's). Then the process is ended."""
    lost: str = ""
    """One sentence about what was lost; "" while all is well."""
    _last_change: dict[int, float] = field(default_factory=dict)
    _values: dict[int, bytes] = field(default_factory=dict)
    _last_reply: float = field(default_factory=time.monotonic)
    _busy: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def interval_seconds(self) -> float:
        return min(BEAT_SECONDS, self.timeout_seconds / 10)

    @property
    def watched(self) -> list[int]:
        return list(range(1, len(self.hosts))) if self.rank == 0 else [0]

    def start(self) -> None:
        for loop in (self._beat, self._watch):
            threading.Thread(target=loop, name="heartbeat", daemon=True).start()

    def leave(self, reason: str = "") -> None:
        """Stop. The others do not wait for further signs of this process. With a reason, they end too and say it."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if reason and not self.lost:
            self.lost = f"{_capitalized(self.names([self.rank]))} ended: {reason.rstrip('.')}."
        lost = self.lost if self.rank == 0 or reason else ""
        # In a thread: the store may be what was lost.
        goodbye = threading.Thread(target=self._say_goodbye, args=(lost,), daemon=True)
        goodbye.start()
        goodbye.join(self.interval_seconds)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Do not end this process inside the block: it evaluates or saves."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    def explanation(self) -> str:
        """Wait for a few signs of life and return in one sentence which process was lost, "" if that is unknown.

        On a busy machine a sign of life may be received late, so it waits for a silent process for up to ten intervals.
        """
        for tenth in range(100):
            if self.lost or self._stopped.wait(0.1 * self.interval_seconds):
                return self.lost
            silent = self._silent(2.5 * self.interval_seconds) if tenth >= 29 else []
            if silent:
                return f"{_capitalized(self.names(silent))} {'is' if len(silent) == 1 else 'are'} gone."
        return ""

    def names(self, ranks: Sequence[int]) -> str:
        """Return processes with their hosts, for a message."""
        named = [f"{rank} ({self.hosts[rank]})" for rank in ranks[:4]]
        more = f" and {len(ranks) - 4} more" if len(ranks) > 4 else ""
        return f"{'process' if len(ranks) == 1 else 'processes'} {', '.join(named)}{more}"

    def _silent(self, seconds: float) -> list[int]:
        """Return the watched processes without a sign of life for this long."""
        now = time.monotonic()
        return [rank for rank, changed in sorted(self._last_change.copy().items()) if now - changed > seconds]

    def _beat(self) -> None:
        count = 0
        while not self._stopped.is_set():
            count += 1
            with suppress(RuntimeError):  # the store is gone; `_watch` waits for the timeout
                self.store.set(_key(self.rank), str(count))
                self._receive(*self.store.multi_get([LOST_KEY, *(_key(rank) for rank in self.watched)]))
            self._stopped.wait(self.interval_seconds)

    def _receive(self, lost: bytes, *values: bytes) -> None:
        now = self._last_reply = time.monotonic()
        if lost and not self.lost:
            self.lost = lost.decode()
        elif self.lost and self.rank == 0:
            self.store.set(LOST_KEY, self.lost)
        for rank, value in zip(self.watched, values, strict=True):
            if value == GOODBYE.encode():
                self._last_change.pop(rank, None)
            elif value != self._values.get(rank):
                self._last_change[rank] = now
            self._values[rank] = value

    def _watch(self) -> None:
        last_look = time.monotonic()
        while not self.lost and not self._stopped.wait(self.interval_seconds):
            now = time.monotonic()
            if now - last_look > 3 * self.interval_seconds + BEAT_SECONDS:  # this process itself was stopped
                self._last_reply = now
                self._last_change = dict.fromkeys(self._last_change, now)
            last_look = now
            self.lost = self.lost or self._loss(now)
        if self.may_hang:
            self._end_if_stuck()

    def _loss(self, now: float) -> str:
        seconds = f"for {self.timeout_seconds:g} seconds"
        if now - self._last_reply > self.timeout_seconds:
            return f"The main process ({self.hosts[0]}) has not answered {seconds}."
        silent = self._silent(self.timeout_seconds)
        verb = "has" if len(silent) == 1 else "have"
        return f"{_capitalized(self.names(silent))} {verb} given no sign of life {seconds}." if silent else ""

    def _end_if_stuck(self) -> None:
        """End this process if its main thread is in a call that cannot be ended, after it had time to end by itself."""
        while not self._stopped.wait(EXIT_SECONDS):
            if not self._busy:
                sys.stderr.write(f"cardigan (process {self.rank}): {self.lost}\n")
                sys.stderr.flush()
                os._exit(2)

    def _say_goodbye(self, lost: str) -> None:
        with suppress(RuntimeError):
            if lost:
                self.store.set(LOST_KEY, lost)
            self.store.set(_key(self.rank), GOODBYE)


def announce(store: Any, rank: int) -> None:
    """Give the first sign of life, so that a watching process finds it."""
    store.set(_key(rank), "0")
    if rank == 0:
        store.set(LOST_KEY, "")


def _key(rank: int) -> str:
    return f"sign of life/{rank}"


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]
