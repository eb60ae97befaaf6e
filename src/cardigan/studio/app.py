"""The studio's addresses: which of them is answered by what.

Knows HTTP; what runs are and how pictures are drawn is said elsewhere.
"""

import json
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from cardigan.errors import CardiganError
from cardigan.run.directory import RunDirectory
from cardigan.studio import asking, opinions, sheets
from cardigan.studio.asking import TooManyPixels, Wrong
from cardigan.studio.curves import MAX_POINTS, curves, table
from cardigan.studio.guard import HEADERS, Guard
from cardigan.studio.live import Busy, EventStream, Live
from cardigan.studio.places import Folder, NotThere
from cardigan.studio.reading import Reading
from cardigan.studio.reading import sheets as sheets_of
from cardigan.studio.reproducing import reproduction
from cardigan.studio.rooms import Left, Room
from cardigan.web.door import Door

if TYPE_CHECKING:
    from cardigan.studio.views import Views

Query = Mapping[str, str]
STATIC = Path(__file__).parent / "static"
GONE = (FileNotFoundError, NotADirectoryError, PermissionError)
"""What is raised where a run is deleted, or closed to us, while it is read."""
MAX_IMAGES = 10**15
FILMS = {"webp": "image/webp", "gif": "image/gif", "mp4": "video/mp4"}
READERS = 4
"""Threads that read runs for all who ask."""
Given = ParamSpec("Given")
Found = TypeVar("Found")


class Studio:
    """The runs of one folder, and everything that answers about them."""

    def __init__(self, folder: Folder, device: str) -> None:
        self._device = device
        self.reading, self.live, self.room, self.cutting_room = Reading(folder), Live(), Room(), Room()
        self._readers = CapacityLimiter(READERS)
        self._views: Views | None = None
        self._opened = sheets.Opened()
        self._is_inverting = False

    async def read(self, function: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
        """Return what a function reads, in a thread: a slow disk stops nobody else."""
        return await to_thread.run_sync(partial(function, *given, **named), limiter=self._readers)

    def run(self, request: Request) -> RunDirectory:
        """Return the run that is asked for."""
        return self.reading.folder.run(request.query_params.get("run", ""))

    def sheet_path(self, run: RunDirectory, images_seen: int) -> Path:
        """Return where a sample sheet lies; raises NotThere."""
        return self.reading.folder.file(run, run.sample(images_seen), f"sample sheet at {images_seen:,} images")

    async def page(self, request: Request) -> Response:
        """`/`."""
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    async def runs(self, request: Request) -> Response:
        """`/api/runs`."""
        found = await self.read(self.reading.summaries)
        return _answer({"folder": str(self.reading.folder.path), "runs": found})

    async def one_run(self, request: Request) -> Response:
        """`/api/run`."""
        return _answer(await self.read(self.reading.details, request.query_params.get("run", "")))

    async def curves(self, request: Request) -> Response:
        """`/api/curves`."""
        query = request.query_params
        points = asking.whole(query, "points", 1_200, 2, MAX_POINTS)
        first, last = asking.bound(query, "from"), asking.bound(query, "to")

        def read() -> bytes:
            run = self.run(request)
            track = self.reading.track(run)
            with track.lock:
                found = curves(track, points, first, last)
            return _bytes(found)

        return Response(await self.read(read), media_type="application/json", headers={"cache-control": "no-store"})

    async def curves_csv(self, request: Request) -> Response:
        """`/api/curves.csv`."""

        def read() -> tuple[str, Iterator[bytes]]:
            run = self.run(request)
            track = self.reading.track(run)
            with track.lock:
                return run.path.name, table(track)

        name, rows = await self.read(read)
        return StreamingResponse(rows, media_type="text/csv", headers=_download(f"{name}.csv"))

    async def events(self, request: Request) -> Any:
        """`/api/events`."""
        run = await self.read(self.run, request)
        query = {"after": request.headers.get("last-event-id") or request.query_params.get("after", "")}
        return EventStream(self.live, run, asking.optional(query, "after", 0, 2**62))

    async def sheet(self, request: Request) -> Response:
        """`/api/sheet`."""
        at = asking.whole(request.query_params, "at", None, 0, MAX_IMAGES)

        def read() -> tuple[str, bytes]:
            path = self.sheet_path(self.run(request), at)
            facts = path.stat()
            mark = f'"{facts.st_ino:x}-{facts.st_mtime_ns:x}-{facts.st_size:x}"'
            return mark, b"" if request.headers.get("if-none-match") == mark else path.read_bytes()

        mark, content = await self.read(read)  # asked for each time: a run that went back draws its sheets again
        headers = {"cache-control": "no-cache", "etag": mark}
        return Response(content, media_type="image/png", headers=headers) if content else Response(status_code=304, headers=headers)

    async def strip(self, request: Request) -> Response:
        """`/api/strip`."""
        tile = asking.whole(request.query_params, "tile", 0, 0, 4_095)

        def read() -> bytes:
            run = self.run(request)
            paths = [self.sheet_path(run, seen) for seen in sheets.evenly(sheets_of(run), sheets.MAX_STRIP)]
            if not paths:
                raise NotThere(f"The run {run.path.name!r} has no sample sheets.")
            return sheets.strip(self._opened, paths, self.reading.layout(run, self.reading.config(run)), tile)

        return Response(await self.read(read), media_type="image/png", headers={"cache-control": "no-cache"})

    async def opinions(self, request: Request) -> Response:
        """`/api/opinions`."""
        at = asking.optional(request.query_params, "at", 0, MAX_IMAGES)

        def read() -> dict[str, Any]:
            run = self.run(request)
            track = self.reading.track(run)
            with track.lock:
                if at is None:
                    return opinions.histograms(track)
                return opinions.moment(track, at)

        return _answer(await self.read(read))

    def views(self) -> "Views":
        """Return what draws; brings torch the first time, so only the room's thread may ask."""
        from cardigan.studio.views import Views

        self._views = self._views or Views(self.reading, self._device)
        return self._views

    def drawn(self, draw: Callable[["Views", RunDirectory, Query], Any]) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that answers with what is drawn in the room: a PNG, values, or a film with its kind."""

        async def endpoint(request: Request) -> Response:
            run, query = await self.read(self.run, request), dict(request.query_params)
            found = await self.room.work(lambda unwanted: draw(self.views(), run, query), request.is_disconnected)
            if isinstance(found, bytes):
                return Response(found, media_type="image/png", headers={"cache-control": "no-store"})
            return _film(run, *found) if isinstance(found, tuple) else _answer(found)

        return endpoint

    async def film(self, request: Request) -> Response:
        """`/api/film`; needs no model, and can take long, so that it has a room of its own."""
        run, query = await self.read(self.run, request), dict(request.query_params)

        def cut(_: object) -> tuple[bytes, str]:
            from cardigan.studio.films import sheets_film

            return sheets_film(self.reading, run, query)

        return _film(run, *await self.cutting_room.work(cut, request.is_disconnected))

    async def invert(self, request: Request) -> Response:
        """`/api/invert`; one at a time, its upload included, so that a thousand uploads do not fill the memory."""
        run, query = await self.read(self.run, request), dict(request.query_params)
        if self._is_inverting:
            raise Busy("A picture is being searched for already: wait until it is found.")
        self._is_inverting = True
        try:
            content = await request.body()
            found = await self.room.work(lambda unwanted: self.views().invert(run, query, content, unwanted), request.is_disconnected)
        finally:
            self._is_inverting = False
        return _answer(found)

    async def reproduce(self, request: Request) -> Response:
        """`/api/reproduce`."""

        def told() -> dict[str, str]:
            run = self.run(request)
            return reproduction(run, self.reading.layout(run, self.reading.config(run)), request.query_params)

        return _answer(await self.read(told))


class Fresh(StaticFiles):
    """Files that browsers keep, but ask about each time: after an update the page must not be half old."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file."""
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def build_app(folder: Folder, door: Door, device: str = "cpu") -> Starlette:
    """Return the whole server as an ASGI application, which draws on that device; auto is a GPU where there is one."""
    studio = Studio(folder, device)
    routes = [
        Route("/", studio.page),
        Route("/api/runs", studio.runs),
        Route("/api/run", studio.one_run),
        Route("/api/curves", studio.curves),
        Route("/api/curves.csv", studio.curves_csv),
        Route("/api/events", studio.events),
        Route("/api/sheet", studio.sheet),
        Route("/api/strip", studio.strip),
        Route("/api/opinions", studio.opinions),
        Route("/api/game", studio.drawn(lambda views, run, query: views.game(run, query))),
        Route("/api/game.png", studio.drawn(lambda views, run, query: views.game_picture(run, query))),
        Route("/api/latent", studio.drawn(lambda views, run, query: views.latent(run, query))),
        Route("/api/pad.png", studio.drawn(lambda views, run, query: views.pad(run, query))),
        Route("/api/seeds.png", studio.drawn(lambda views, run, query: views.seeds(run, query))),
        Route("/api/moments.png", studio.drawn(lambda views, run, query: views.moments(run, query))),
        Route("/api/mix.png", studio.drawn(lambda views, run, query: views.mix(run, query))),
        Route("/api/walk", studio.drawn(lambda views, run, query: views.walk(run, query))),
        Route("/api/film", studio.film),
        Route("/api/nearest.png", studio.drawn(lambda views, run, query: views.nearest(run, query))),
        Route("/api/invert", studio.invert, methods=["POST"]),
        Route("/api/reproduce", studio.reproduce),
        Mount("/static", Fresh(directory=STATIC, check_dir=False)),
    ]
    told: dict[Any, Any] = {Left: _left, CardiganError: _sentence, HTTPException: _status, **dict.fromkeys(GONE, _gone), Exception: _failed}
    app = Starlette(routes=routes, middleware=[Middleware(Guard, door=door), Middleware(GZipMiddleware, compresslevel=4)], exception_handlers=told)
    app.state.studio = studio
    return app


async def _sentence(request: Request, error: Exception) -> Response:
    kinds = ((Wrong, 400), (NotThere, 404), (TooManyPixels, 413), (Busy, 429))
    status = next((status for kind, status in kinds if isinstance(error, kind)), 409)
    return _answer({"error": str(error)}, status)


async def _status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer({"error": f"There is nothing at {request.url.path[:200]}." if error.status_code == 404 else error.detail}, error.status_code)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it


async def _gone(request: Request, error: Exception) -> Response:
    return _answer({"error": "What was asked for went away, or cannot be read, while it was read."}, 404)


async def _failed(request: Request, error: Exception) -> Response:
    traceback.print_exception(error, file=sys.stderr)
    response = _answer({"error": "The studio failed at this; it says more where it was started."}, 500)
    response.headers.update(HEADERS)  # this one answer is given outside of the guard
    return response


def _answer(content: Any, status: int = 200) -> Response:
    return Response(_bytes(content), status, {"cache-control": "no-store"}, media_type="application/json")


def _bytes(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors="replace")


def _film(run: RunDirectory, content: bytes, kind: str) -> Response:
    return Response(content, media_type=FILMS[kind], headers=_download(f"{run.path.name}.{kind}"))


def _download(name: str) -> dict[str, str]:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return {"content-disposition": f'attachment; filename="{safe}"', "cache-control": "no-store"}
