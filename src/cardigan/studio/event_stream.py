"""Live events of a run as server-sent events.

One task per run polls the journal's size ten times a second, for any number of subscribers. A subscriber that falls
behind is disconnected; its browser reconnects and continues at its last event.
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

from cardigan.http.errors import TooManyRequests
from cardigan.http.limits import BodyTimeout, BodyTooLarge
from cardigan.run.directory import RunDirectory
from cardigan.studio.journal_tail import MAX_LINE_BYTES, TailReader, parse_event

POLL_SECONDS = 0.1
POLL_SECONDS_PER_RUN = 0.002
"""Minimum poll interval per run with subscribers: with more than 50 of them each is polled less often."""
HEARTBEAT_SECONDS = 15.0
SEND_TIMEOUT_SECONDS = 20.0
"""Disconnect a subscriber that reads nothing for this long."""
MAX_QUEUED_MESSAGES = 256
"""Maximum number of queued events per subscriber."""
MAX_SUBSCRIBERS = 1_000
MAX_READ_BYTES = 4 << 20
"""Bytes of a journal read at a time."""
EVENT_NAME_PATTERN = re.compile("[a-z][a-z_-]{0,39}")
RUN_DELETED_MESSAGE = b"event: deleted\ndata: {}\n\n"
SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def sse_message(offset: int, line: bytes) -> bytes:
    """Return a journal line as a server-sent event, `malformed-line` if it is malformed, and b"" for an empty line."""
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
    except ValueError:  # NaN or infinity, from a number that overflows
        return malformed


@dataclass(eq=False)
class Subscriber:
    """One connected page and its queue of messages. None in the queue ends the stream."""

    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(MAX_QUEUED_MESSAGES + 1))

    def put(self, message: bytes) -> bool:
        """Queue a message. Return False if the queue is full."""
        if self.queue.qsize() >= MAX_QUEUED_MESSAGES:
            return False
        self.queue.put_nowait(message)
        return True

    def close(self) -> None:
        """End the stream after the queued messages. A full queue loses its first message, which a reconnect replays."""
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


@dataclass(eq=False)
class JournalBroadcast:
    """One run's journal, read once for all subscribers."""

    run: RunDirectory
    tail: TailReader
    subscribers: set[Subscriber] = field(default_factory=set)
    task: asyncio.Task[None] | None = None
    published_offset: int = 0
    """Offset in the journal after the last published event. A reader thread may be further."""

    def new_messages(self) -> list[bytes] | None:
        """Return the journal's new events as messages, None if the run was deleted."""
        try:
            if not self.run.config.exists():
                return None
            self.tail.reset_if_replaced()
            if self.tail.size == self.tail.offset:
                return []
            return [event for event in self._read_messages(self.tail) if event]
        except OSError:
            return []  # does not exist yet, or is not readable at the moment

    def replay(self, after: int, up_to: int) -> Iterator[bytes]:
        """Yield the events between two offsets of the journal, in chunks."""
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
        """Queue messages for every subscriber. Disconnect those whose queue is full."""
        for subscriber in list(self.subscribers):
            if not all(subscriber.put(message) for message in messages):
                self.subscribers.discard(subscriber)
                subscriber.close()

    def close(self, final_message: bytes = b"") -> None:
        """End the streams of all subscribers."""
        for subscriber in self.subscribers:
            subscriber.put(final_message)
            subscriber.close()
        self.subscribers.clear()


class EventHub:
    """The broadcasts of all runs that have subscribers."""

    def __init__(self) -> None:
        self._broadcasts: dict[Path, JournalBroadcast] = {}
        self._reader_limit = CapacityLimiter(4)

    @property
    def num_subscribers(self) -> int:
        return sum(len(broadcast.subscribers) for broadcast in self._broadcasts.values())

    async def stream(self, run: RunDirectory, after: int | None, receive: Receive, send: Send) -> None:
        """Send the run's events until the client disconnects or the run is deleted.

        `after` is an offset in the journal: later events are replayed first. Default: only new events. Raises
        TooManyRequests before anything is sent.
        """
        if self.num_subscribers >= MAX_SUBSCRIBERS:
            raise TooManyRequests(f"{MAX_SUBSCRIBERS:,} pages are connected already: close some of them.")
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
            return  # the client reads nothing: the server closes the connection
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
            if run.path not in self._broadcasts:  # no other request added it in the meantime
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
        pass  # a request for events has no body: a client that sends one is disconnected
    subscriber.close()


def _last_line_end(journal: Path) -> int:
    """Return the offset after the journal's last complete line."""
    try:
        with journal.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - MAX_LINE_BYTES)
            file.seek(start)
            return start + file.read(size - start).rfind(b"\n") + 1
    except OSError:
        return 0


class EventStream:
    """Starlette response that streams a run's events."""

    def __init__(self, event_hub: EventHub, run: RunDirectory, after: int | None) -> None:
        self._send = partial(event_hub.stream, run, after)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        await self._send(receive, send)
