"""A run as it happens: one reader of its journal for however many who look on, as server-sent events.

The reader stats one file ten times a second, whoever looks; a viewer that does not keep up is cut off and comes back for the rest.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.types import Receive, Scope, Send

from cardigan.errors import CardiganError
from cardigan.run.directory import RunDirectory
from cardigan.studio.journal import MAX_LINE, Lines, parsed
from cardigan.web.bodies import TooLarge, TooSlow

POLL_SECONDS = 0.1
POLL_A_RUN = 0.002
"""With many runs looked at, each is looked into less often, so that all together stay cheap."""
HEARTBEAT_SECONDS = 15.0
SEND_SECONDS = 20.0
"""A viewer that takes nothing for this long is gone."""
MAX_WAITING = 256
"""Events that wait for one viewer."""
MAX_VIEWERS = 1_000
MAX_READ = 4 << 20
"""Bytes of a journal that are read at a time."""
KIND = re.compile("[a-z][a-z_-]{0,39}")
GONE = b"event: gone\ndata: {}\n\n"
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class Busy(CardiganError):
    """Too much is asked for at once."""


def frame(offset: int, line: bytes) -> bytes:
    """Return a journal line as an event of the stream; a malformed one as `broken-line`, so that its reader knows of the gap. Empty for none."""
    if not line.strip():
        return b""
    broken = f'id: {offset}\nevent: broken-line\ndata: {{"offset": {offset}}}\n\n'.encode()
    event = parsed(line)
    if event is None or not KIND.fullmatch(event.kind):
        return broken
    values = {**event.values, "kind": event.kind, "images_seen": event.images_seen, "elapsed_seconds": event.elapsed_seconds}
    try:
        return f"id: {offset}\nevent: {event.kind}\ndata: {json.dumps(values, allow_nan=False)}\n\n".encode()
    except ValueError:  # a number that overflows, in a line of progress
        return broken


@dataclass(eq=False)
class Viewer:
    """One page that looks on: what waits for it, None when there will be nothing more."""

    waiting: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING + 1))

    def tell(self, event: bytes) -> bool:
        """Return whether there was room for the event."""
        if self.waiting.qsize() >= MAX_WAITING:
            return False
        self.waiting.put_nowait(event)
        return True

    def end(self) -> None:
        """Have what waits be sent and the stream be closed; where the queue is full the viewer is slow, and loses its last event, to ask again."""
        if self.waiting.full():
            self.waiting.get_nowait()
        self.waiting.put_nowait(None)


@dataclass(eq=False)
class Broadcast:
    """One run's journal, read once for all its viewers."""

    run: RunDirectory
    lines: Lines
    viewers: set[Viewer] = field(default_factory=set)
    task: asyncio.Task[None] | None = None
    told: int = 0
    """Where in the journal ends what its viewers were told; the lines may have been read further, in a thread."""

    def news(self) -> list[bytes] | None:
        """Return the events that are new in the journal; None if the run is gone."""
        try:
            if not self.run.config.exists():
                return None
            self.lines.begun_anew()
            if self.lines.size == self.lines.offset:
                return []
            return [event for event in self._frames(self.lines) if event]
        except OSError:
            return []  # not there yet, or not readable in this moment

    def past(self, after: int, up_to: int) -> Iterator[bytes]:
        """Yield the events between two offsets of the journal, some at a time."""
        lines = Lines(self.run.journal, after)
        while lines.offset < up_to:
            before = lines.offset
            yield b"".join(self._frames(lines, up_to))
            if lines.offset == before:
                return

    def _frames(self, lines: Lines, up_to: int | None = None) -> list[bytes]:
        end = lines.offset + MAX_READ
        return [frame(offset, line) for offset, line in lines.new(end if up_to is None else min(end, up_to))]

    def tell(self, events: list[bytes]) -> None:
        """Hand events to every viewer; end those that have too much waiting."""
        for viewer in list(self.viewers):
            if not all(viewer.tell(event) for event in events):
                self.viewers.discard(viewer)
                viewer.end()

    def end(self, event: bytes = b"") -> None:
        """End every viewer's stream."""
        for viewer in self.viewers:
            viewer.tell(event)
            viewer.end()
        self.viewers.clear()


class Live:
    """All runs that somebody looks at."""

    def __init__(self) -> None:
        self._broadcasts: dict[Path, Broadcast] = {}
        self._threads = CapacityLimiter(4)

    @property
    def num_viewers(self) -> int:
        return sum(len(broadcast.viewers) for broadcast in self._broadcasts.values())

    async def stream(self, run: RunDirectory, after: int | None, receive: Receive, send: Send) -> None:
        """Send the run's events, those after an offset of its journal or those to come, until the client leaves or the run is gone.

        Raises Busy before anything is sent.
        """
        if self.num_viewers >= MAX_VIEWERS:
            raise Busy(f"{MAX_VIEWERS:,} pages look on already: close some of them.")
        viewer = Viewer()
        broadcast, joined_at = await self._joined(run, viewer)
        listening = asyncio.create_task(_until_left(receive, viewer))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            async for part in self._parts(broadcast, viewer, after, joined_at):
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            return  # it takes nothing: the server closes what is left of the connection
        finally:
            listening.cancel()
            self._left(broadcast, viewer)

    async def _parts(self, broadcast: Broadcast, viewer: Viewer, after: int | None, joined_at: int) -> AsyncIterator[bytes]:
        yield b": here\nretry: 2000\n\n"
        past = iter(()) if after is None or after >= joined_at else broadcast.past(after, joined_at)
        with suppress(OSError):
            while part := await to_thread.run_sync(next, past, None, limiter=self._threads):
                yield part
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    events = [await viewer.waiting.get()]
            except TimeoutError:
                yield b": still here\n\n"
                continue
            while not viewer.waiting.empty():
                events.append(viewer.waiting.get_nowait())
            if any(events):
                yield b"".join(event for event in events if event)
            if None in events:
                return

    async def _joined(self, run: RunDirectory, viewer: Viewer) -> tuple[Broadcast, int]:
        if run.path not in self._broadcasts:
            end = await to_thread.run_sync(_end, run.journal, limiter=self._threads)
            if run.path not in self._broadcasts:  # nobody was faster
                self._broadcasts[run.path] = broadcast = Broadcast(run, Lines(run.journal, end), told=end)
                broadcast.task = asyncio.create_task(self._watch(broadcast))
        broadcast = self._broadcasts[run.path]
        broadcast.viewers.add(viewer)
        return broadcast, broadcast.told

    def _left(self, broadcast: Broadcast, viewer: Viewer) -> None:
        broadcast.viewers.discard(viewer)
        if not broadcast.viewers and self._broadcasts.get(broadcast.run.path) is broadcast:
            del self._broadcasts[broadcast.run.path]
            if broadcast.task is not None:
                broadcast.task.cancel()

    async def _watch(self, broadcast: Broadcast) -> None:
        while True:
            await anyio.sleep(max(POLL_SECONDS, POLL_A_RUN * len(self._broadcasts)))
            events = await to_thread.run_sync(broadcast.news, limiter=self._threads)
            if events is None:
                self._broadcasts.pop(broadcast.run.path, None)
                broadcast.end(GONE)
                return
            broadcast.tell(events)
            broadcast.told = broadcast.lines.offset


async def _until_left(receive: Receive, viewer: Viewer) -> None:
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except (TooLarge, TooSlow):
        pass  # a request for events has no body: whoever announces one is hung up on
    viewer.end()


def _end(journal: Path) -> int:
    """Return where the last whole line of a journal ends."""
    try:
        with journal.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - MAX_LINE)
            file.seek(start)
            return start + file.read(size - start).rfind(b"\n") + 1
    except OSError:
        return 0


class EventStream:
    """The answer to a request for a run's events, in the form Starlette asks for."""

    def __init__(self, live: Live, run: RunDirectory, after: int | None) -> None:
        self._send = partial(live.stream, run, after)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await self._send(receive, send)
