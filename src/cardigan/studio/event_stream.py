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
from cardigan.http.limits import BodyTimeout, BodyTooLarge
from cardigan.run.directory import RunDirectory
from cardigan.studio.journal_tail import MAX_LINE_BYTES, TailReader, parse_event

POLL_SECONDS = 0.1
POLL_SECONDS_PER_RUN = 0.002
"""With many runs looked at, each is looked into less often, so that all together stay cheap."""
HEARTBEAT_SECONDS = 15.0
SEND_TIMEOUT_SECONDS = 20.0
"""A viewer that takes nothing for this long is gone."""
MAX_QUEUED_MESSAGES = 256
"""Events that wait for one viewer."""
MAX_SUBSCRIBERS = 1_000
MAX_READ_BYTES = 4 << 20
"""Bytes of a journal that are read at a time."""
EVENT_NAME_PATTERN = re.compile("[a-z][a-z_-]{0,39}")
RUN_DELETED_MESSAGE = b"event: deleted\ndata: {}\n\n"
SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class TooManyRequests(CardiganError):
    """Too much is asked for at once."""


def sse_message(offset: int, line: bytes) -> bytes:
    """Return a journal line as an event of the stream; a malformed one as `malformed-line`, so that its reader knows of the gap. Empty for none."""
    if not line.strip():
        return b""
    malformed = f'id: {offset}\nevent: malformed-line\ndata: {{"offset": {offset}}}\n\n'.encode()
    event = parse_event(line)
    if event is None or not EVENT_NAME_PATTERN.fullmatch(event.kind):
        return malformed
    values = {
        **event.values,
        "kind": event.kind,
        "images_seen": event.images_seen,
        "elapsed_seconds": event.elapsed_seconds,
    }
    try:
        return f"id: {offset}\nevent: {event.kind}\ndata: {json.dumps(values, allow_nan=False)}\n\n".encode()
    except ValueError:  # a number that overflows, in a line of progress
        return malformed


@dataclass(eq=False)
class Subscriber:
    """One page that looks on: what waits for it, None when there will be nothing more."""

    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(MAX_QUEUED_MESSAGES + 1))

    def put(self, message: bytes) -> bool:
        """Return whether there was room for the event."""
        if self.queue.qsize() >= MAX_QUEUED_MESSAGES:
            return False
        self.queue.put_nowait(message)
        return True

    def close(self) -> None:
        """Have what waits be sent and the stream be closed; where the queue is full the viewer is slow, and loses its last event, to ask again."""
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


@dataclass(eq=False)
class JournalBroadcast:
    """One run's journal, read once for all its viewers."""

    run: RunDirectory
    tail: TailReader
    subscribers: set[Subscriber] = field(default_factory=set)
    task: asyncio.Task[None] | None = None
    published_offset: int = 0
    """Where in the journal ends what its viewers were told; the lines may have been read further, in a thread."""

    def new_messages(self) -> list[bytes] | None:
        """Return the events that are new in the journal; None if the run is gone."""
        try:
            if not self.run.config.exists():
                return None
            self.tail.reset_if_replaced()
            if self.tail.size == self.tail.offset:
                return []
            return [event for event in self._read_messages(self.tail) if event]
        except OSError:
            return []  # not there yet, or not readable in this moment

    def replay(self, after: int, up_to: int) -> Iterator[bytes]:
        """Yield the events between two offsets of the journal, some at a time."""
        tail = TailReader(self.run.journal, after)
        while tail.offset < up_to:
            previous_offset = tail.offset
            yield b"".join(self._read_messages(tail, up_to))
            if tail.offset == previous_offset:
                return

    def _read_messages(self, tail: TailReader, up_to: int | None = None) -> list[bytes]:
        max_offset = tail.offset + MAX_READ_BYTES
        return [
            sse_message(offset, line)
            for offset, line in tail.read_lines(max_offset if up_to is None else min(max_offset, up_to))
        ]

    def publish(self, messages: list[bytes]) -> None:
        """Hand events to every viewer; end those that have too much waiting."""
        for subscriber in list(self.subscribers):
            if not all(subscriber.put(message) for message in messages):
                self.subscribers.discard(subscriber)
                subscriber.close()

    def close(self, final_message: bytes = b"") -> None:
        """End every viewer's stream."""
        for subscriber in self.subscribers:
            subscriber.put(final_message)
            subscriber.close()
        self.subscribers.clear()


class EventHub:
    """All runs that somebody looks at."""

    def __init__(self) -> None:
        self._broadcasts: dict[Path, JournalBroadcast] = {}
        self._reader_limit = CapacityLimiter(4)

    @property
    def num_subscribers(self) -> int:
        return sum(len(broadcast.subscribers) for broadcast in self._broadcasts.values())

    async def stream(self, run: RunDirectory, after: int | None, receive: Receive, send: Send) -> None:
        """Send the run's events, those after an offset of its journal or those to come, until the client leaves or the run is gone.

        Raises Busy before anything is sent.
        """
        if self.num_subscribers >= MAX_SUBSCRIBERS:
            raise TooManyRequests(f"{MAX_SUBSCRIBERS:,} pages look on already: close some of them.")
        subscriber = Subscriber()
        broadcast, start_offset = await self._subscribe(run, subscriber)
        disconnect_task = asyncio.create_task(_close_on_disconnect(receive, subscriber))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
            async for chunk in self._stream_chunks(broadcast, subscriber, after, start_offset):
                async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            return  # it takes nothing: the server closes what is left of the connection
        finally:
            disconnect_task.cancel()
            self._unsubscribe(broadcast, subscriber)

    async def _stream_chunks(
        self, broadcast: JournalBroadcast, subscriber: Subscriber, after: int | None, start_offset: int
    ) -> AsyncIterator[bytes]:
        yield b": here\nretry: 2000\n\n"
        replayed = iter(()) if after is None or after >= start_offset else broadcast.replay(after, start_offset)
        with suppress(OSError):
            while chunk := await to_thread.run_sync(next, replayed, None, limiter=self._reader_limit):
                yield chunk
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    messages = [await subscriber.queue.get()]
            except TimeoutError:
                yield b": still here\n\n"
                continue
            while not subscriber.queue.empty():
                messages.append(subscriber.queue.get_nowait())
            if any(messages):
                yield b"".join(message for message in messages if message)
            if None in messages:
                return

    async def _subscribe(self, run: RunDirectory, subscriber: Subscriber) -> tuple[JournalBroadcast, int]:
        if run.path not in self._broadcasts:
            end_offset = await to_thread.run_sync(_last_line_end, run.journal, limiter=self._reader_limit)
            if run.path not in self._broadcasts:  # nobody was faster
                self._broadcasts[run.path] = broadcast = JournalBroadcast(
                    run, TailReader(run.journal, end_offset), published_offset=end_offset
                )
                broadcast.task = asyncio.create_task(self._poll(broadcast))
        broadcast = self._broadcasts[run.path]
        broadcast.subscribers.add(subscriber)
        return broadcast, broadcast.published_offset

    def _unsubscribe(self, broadcast: JournalBroadcast, subscriber: Subscriber) -> None:
        broadcast.subscribers.discard(subscriber)
        if not broadcast.subscribers and self._broadcasts.get(broadcast.run.path) is broadcast:
            del self._broadcasts[broadcast.run.path]
            if broadcast.task is not None:
                broadcast.task.cancel()

    async def _poll(self, broadcast: JournalBroadcast) -> None:
        while True:
            await anyio.sleep(max(POLL_SECONDS, POLL_SECONDS_PER_RUN * len(self._broadcasts)))
            messages = await to_thread.run_sync(broadcast.new_messages, limiter=self._reader_limit)
            if messages is None:
                self._broadcasts.pop(broadcast.run.path, None)
                broadcast.close(RUN_DELETED_MESSAGE)
                return
            broadcast.publish(messages)
            broadcast.published_offset = broadcast.tail.offset


async def _close_on_disconnect(receive: Receive, subscriber: Subscriber) -> None:
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except (BodyTooLarge, BodyTimeout):
        pass  # a request for events has no body: whoever announces one is hung up on
    subscriber.close()


def _last_line_end(journal: Path) -> int:
    """Return where the last whole line of a journal ends."""
    try:
        with journal.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - MAX_LINE_BYTES)
            file.seek(start)
            return start + file.read(size - start).rfind(b"\n") + 1
    except OSError:
        return 0


class EventStream:
    """The answer to a request for a run's events, in the form Starlette asks for."""

    def __init__(self, event_hub: EventHub, run: RunDirectory, after: int | None) -> None:
        self._send = partial(event_hub.stream, run, after)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await self._send(receive, send)
