"""The studio's ASGI application: routes, endpoints, error responses."""

import json
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from cardigan.errors import CardiganError
from cardigan.http.endpoint import Endpoint
from cardigan.http.errors import BadRequest, ClientDisconnected, TooManyRequests
from cardigan.http.responses import disconnected_response, json_bytes, json_response
from cardigan.run.directory import RunDirectory
from cardigan.studio import query_params, sample_sheets
from cardigan.studio.access import SECURITY_HEADERS, CookieAccessMiddleware
from cardigan.studio.annotations import parse_annotations, write_annotations
from cardigan.studio.curves import MAX_POINTS, csv_chunks, curves
from cardigan.studio.event_stream import EventHub, EventStream
from cardigan.studio.logits import decision_boundary, logit_histograms, logits_at
from cardigan.studio.query_params import ImageTooLarge
from cardigan.studio.reproduction_code import reproduction_code
from cardigan.studio.run_reader import RunReader, sheet_images_seen
from cardigan.studio.runs_folder import NotFound, RunsFolder, is_model_file
from cardigan.studio.trash import move_to_trash
from cardigan.studio.worker import WorkerQueue

if TYPE_CHECKING:
    from cardigan.studio.model_views import ModelViews

Query = Mapping[str, str]
STATIC = Path(__file__).parent / "static"
VANISHED_ERRORS = (FileNotFoundError, NotADirectoryError, PermissionError)
"""Errors if a run is deleted or made unreadable while it is read."""
MAX_IMAGES_SEEN = 10**15
ANIMATION_MEDIA_TYPES = {"webp": "image/webp", "gif": "image/gif", "mp4": "video/mp4"}
NUM_READER_THREADS = 4
"""Threads that read run files, for all clients together."""
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Studio:
    """Endpoints for the runs of one folder, with their caches and worker threads."""

    def __init__(self, folder: RunsFolder, device: str) -> None:
        self._device = device
        self.run_reader, self.event_hub, self.worker, self.animation_worker = (
            RunReader(folder),
            EventHub(),
            WorkerQueue(),
            WorkerQueue(),
        )
        self._reader_limit = CapacityLimiter(NUM_READER_THREADS)
        self._model_views: ModelViews | None = None
        self._sheet_cache = sample_sheets.SheetCache()
        self._is_inverting = False

    async def run_in_thread(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function in a reader thread, so that a slow disk does not block the event loop."""
        return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._reader_limit)

    def requested_run(self, request: Request) -> RunDirectory:
        """Return the run that the query names. Raises NotFound."""
        return self.run_reader.folder.run(request.query_params.get("run", ""))

    def sheet_path(self, run: RunDirectory, images_seen: int) -> Path:
        """Return the path of a sample sheet. Raises NotFound."""
        return self.run_reader.folder.file(run, run.sample_path(images_seen), f"sample sheet at {images_seen:,} images")

    async def page(self, request: Request) -> Response:
        """`/`."""
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    async def runs(self, request: Request) -> Response:
        """`/api/runs`."""
        summaries = await self.run_in_thread(self.run_reader.summaries)
        return json_response({"folder": str(self.run_reader.folder.path), "runs": summaries})

    async def run_details(self, request: Request) -> Response:
        """`/api/run`."""
        return json_response(await self.run_in_thread(self.run_reader.details, request.query_params.get("run", "")))

    async def curves(self, request: Request) -> Response:
        """`/api/curves`."""
        query = request.query_params
        points = query_params.integer(query, "points", 1_200, 2, MAX_POINTS)
        first, last = query_params.optional_number(query, "from"), query_params.optional_number(query, "to")
        wanted = frozenset(query["series"].split(",")) if "series" in query else None

        def read() -> bytes:
            run = self.requested_run(request)
            run_series = self.run_reader.run_series(run)
            with run_series.lock:
                values = curves(run_series, points, first, last, wanted)
            return json_bytes(values)

        return Response(
            await self.run_in_thread(read), media_type="application/json", headers={"cache-control": "no-store"}
        )

    async def curves_csv(self, request: Request) -> Response:
        """`/api/curves.csv`."""

        def read() -> tuple[str, Iterator[bytes]]:
            run = self.requested_run(request)
            run_series = self.run_reader.run_series(run)
            with run_series.lock:
                return run.path.name, csv_chunks(run_series)

        name, rows = await self.run_in_thread(read)
        return StreamingResponse(rows, media_type="text/csv", headers=_download_headers(f"{name}.csv"))

    async def report(self, request: Request) -> Response:
        """`/api/report`. The page may contain anything, so it runs no script and loads nothing."""

        def read() -> bytes:
            run = self.requested_run(request)
            return self.run_reader.folder.file(run, run.path / "report.html", "report.html").read_bytes()

        return HTMLResponse(await self.run_in_thread(read), headers={"cache-control": "no-cache"})

    async def annotate(self, request: Request) -> Response:
        """`POST /api/annotate`: name, star and note of a run, as JSON."""
        content = await _json_body(request)

        def write() -> dict[str, Any]:
            run = self.requested_run(request)
            if is_model_file(run):
                raise CardiganError("A single model file has no place for notes: only runs can be named and noted.")
            annotations = parse_annotations(content)
            write_annotations(run, annotations)
            return asdict(annotations)

        return json_response(await self.run_in_thread(write))

    async def trash(self, request: Request) -> Response:
        """`POST /api/trash`: move a run to the trash folder. The body repeats the run's id."""
        content, run_id = await _json_body(request), request.query_params.get("run", "")
        if content != {"run": run_id}:
            raise BadRequest("The body does not name the run to move to the trash.")
        path = await self.run_in_thread(move_to_trash, self.run_reader.folder, run_id)
        return json_response({"moved_to": str(path)})

    async def events(self, request: Request) -> Any:
        """`/api/events`."""
        run = await self.run_in_thread(self.requested_run, request)
        query = {"after": request.headers.get("last-event-id") or request.query_params.get("after", "")}
        return EventStream(self.event_hub, run, query_params.optional_integer(query, "after", 0, 2**62))

    async def sheet(self, request: Request) -> Response:
        """`/api/sample-sheet`."""
        images_seen = query_params.integer(request.query_params, "images_seen", None, 0, MAX_IMAGES_SEEN)

        def read() -> tuple[str, bytes]:
            path = self.sheet_path(self.requested_run(request), images_seen)
            file_stat = path.stat()
            etag = f'"{file_stat.st_ino:x}-{file_stat.st_mtime_ns:x}-{file_stat.st_size:x}"'
            return etag, b"" if request.headers.get("if-none-match") == etag else path.read_bytes()

        # clients revalidate, because a run writes its sheets again after a rollback
        etag, content = await self.run_in_thread(read)
        headers = {"cache-control": "no-cache", "etag": etag}
        return (
            Response(content, media_type="image/png", headers=headers)
            if content
            else Response(status_code=304, headers=headers)
        )

    async def tile_history(self, request: Request) -> Response:
        """`/api/tile-history`."""
        tile = query_params.integer(request.query_params, "tile", 0, 0, 4_095)

        def read() -> bytes:
            run = self.requested_run(request)
            paths = [
                self.sheet_path(run, images_seen)
                for images_seen in sample_sheets.evenly_spaced(sheet_images_seen(run), sample_sheets.MAX_TILE_HISTORY)
            ]
            if not paths:
                raise NotFound(f"The run {run.path.name!r} has no sample sheets.")
            return sample_sheets.tile_history_png(
                self._sheet_cache, paths, self.run_reader.layout(run, self.run_reader.config(run)), tile
            )

        return Response(await self.run_in_thread(read), media_type="image/png", headers={"cache-control": "no-cache"})

    async def logits(self, request: Request) -> Response:
        """`/api/logits`."""
        images_seen = query_params.optional_integer(request.query_params, "images_seen", 0, MAX_IMAGES_SEEN)

        def read() -> dict[str, Any]:
            run = self.requested_run(request)
            run_series = self.run_reader.run_series(run)
            boundary = decision_boundary(self.run_reader.config(run)) if images_seen is None else None
            with run_series.lock:
                if images_seen is None:
                    return logit_histograms(run_series, boundary)
                return logits_at(run_series, images_seen)

        return json_response(await self.run_in_thread(read))

    def model_views(self) -> "ModelViews":
        """Return the model views, created on first use. Only the worker thread may call this: it imports torch."""
        from cardigan.studio.model_views import ModelViews

        self._model_views = self._model_views or ModelViews(self.run_reader, self._device)
        return self._model_views

    def model_endpoint(
        self, render: Callable[["ModelViews", RunDirectory, Query], Any]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that calls `render` in the worker thread.

        `render` returns the bytes of a PNG, JSON values, or an animation with its format.
        """

        async def endpoint(request: Request) -> Response:
            run, query = await self.run_in_thread(self.requested_run, request), dict(request.query_params)
            result = await self.worker.run(
                lambda is_cancelled: render(self.model_views(), run, query), request.is_disconnected
            )
            if isinstance(result, bytes):
                return Response(result, media_type="image/png", headers={"cache-control": "no-store"})
            return _animation_response(run, *result) if isinstance(result, tuple) else json_response(result)

        return endpoint

    async def animation(self, request: Request) -> Response:
        """`/api/animation`. It needs no model and can take long, so it has its own worker."""
        run, query = await self.run_in_thread(self.requested_run, request), dict(request.query_params)

        def render(_: object) -> tuple[bytes, str]:
            from cardigan.studio.animations import sheets_animation

            return sheets_animation(self.run_reader, run, query)

        return _animation_response(run, *await self.animation_worker.run(render, request.is_disconnected))

    async def invert(self, request: Request) -> Response:
        """`/api/invert`. Handles one request at a time, upload included, to bound the memory."""
        run, query = await self.run_in_thread(self.requested_run, request), dict(request.query_params)
        if self._is_inverting:
            raise TooManyRequests("Another inversion is running: wait until it has finished.")
        self._is_inverting = True
        try:
            content = await request.body()
            result = await self.worker.run(
                lambda is_cancelled: self.model_views().invert(run, query, content, is_cancelled),
                request.is_disconnected,
            )
        finally:
            self._is_inverting = False
        return json_response(result)

    async def reproduce(self, request: Request) -> Response:
        """`/api/reproduce`."""

        def code() -> dict[str, str]:
            run = self.requested_run(request)
            return reproduction_code(
                run, self.run_reader.layout(run, self.run_reader.config(run)), request.query_params
            )

        return json_response(await self.run_in_thread(code))


class RevalidatedStaticFiles(StaticFiles):
    """Static files that browsers cache but revalidate, so that an update never mixes old and new files."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file with `cache-control: no-cache`."""
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def build_app(folder: RunsFolder, endpoint: Endpoint, device: str = "cpu") -> Starlette:
    """Return the studio as an ASGI application. `device` runs the models; auto uses a GPU if available."""
    studio = Studio(folder, device)
    routes = [
        Route("/", studio.page),
        Route("/api/runs", studio.runs),
        Route("/api/run", studio.run_details),
        Route("/api/curves", studio.curves),
        Route("/api/curves.csv", studio.curves_csv),
        Route("/api/events", studio.events),
        Route("/api/sample-sheet", studio.sheet),
        Route("/api/tile-history", studio.tile_history),
        Route("/api/logits", studio.logits),
        Route("/api/discriminator", studio.model_endpoint(lambda views, run, query: views.discriminator(run, query))),
        Route(
            "/api/discriminator.png",
            studio.model_endpoint(lambda views, run, query: views.discriminator_image(run, query)),
        ),
        Route("/api/latent", studio.model_endpoint(lambda views, run, query: views.latent(run, query))),
        Route(
            "/api/interpolation.png", studio.model_endpoint(lambda views, run, query: views.interpolation(run, query))
        ),
        Route("/api/seeds.png", studio.model_endpoint(lambda views, run, query: views.seeds(run, query))),
        Route("/api/checkpoints.png", studio.model_endpoint(lambda views, run, query: views.checkpoints(run, query))),
        Route("/api/arithmetic.png", studio.model_endpoint(lambda views, run, query: views.arithmetic(run, query))),
        Route("/api/walk", studio.model_endpoint(lambda views, run, query: views.walk(run, query))),
        Route("/api/animation", studio.animation),
        Route("/api/nearest.png", studio.model_endpoint(lambda views, run, query: views.nearest(run, query))),
        Route("/api/invert", studio.invert, methods=["POST"]),
        Route("/api/report", studio.report),
        Route("/api/annotate", studio.annotate, methods=["POST"]),
        Route("/api/trash", studio.trash, methods=["POST"]),
        Route("/api/reproduce", studio.reproduce),
        Mount("/static", RevalidatedStaticFiles(directory=STATIC, check_dir=False)),
    ]
    exception_handlers: dict[Any, Any] = {
        ClientDisconnected: disconnected_response,
        ClientDisconnect: disconnected_response,
        CardiganError: _cardigan_error_response,
        HTTPException: _http_error_response,
        **dict.fromkeys(VANISHED_ERRORS, _gone_response),
        Exception: _server_error_response,
    }
    app = Starlette(
        routes=routes,
        middleware=[Middleware(CookieAccessMiddleware, endpoint=endpoint), Middleware(GZipMiddleware, compresslevel=4)],
        exception_handlers=exception_handlers,
    )
    app.state.studio = studio
    return app


async def _json_body(request: Request) -> Any:
    """Return the JSON of a request. Pages of other sites cannot send this content type without being asked first."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise BadRequest("The body is not JSON: send content-type application/json.")
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not valid JSON.") from error


async def _cardigan_error_response(request: Request, error: Exception) -> Response:
    status_by_type = ((BadRequest, 400), (NotFound, 404), (ImageTooLarge, 413), (TooManyRequests, 429))
    status = next((status for error_type, status in status_by_type if isinstance(error, error_type)), 409)
    return json_response({"error": str(error)}, status)


async def _http_error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json_response(
        {"error": f"Not found: {request.url.path[:200]}." if error.status_code == 404 else error.detail},
        error.status_code,
    )


async def _gone_response(request: Request, error: Exception) -> Response:
    return json_response({"error": "The file was deleted or became unreadable while it was read."}, 404)


async def _server_error_response(request: Request, error: Exception) -> Response:
    traceback.print_exception(error, file=sys.stderr)
    response = json_response({"error": "Internal error. The traceback is in the terminal of `cardigan studio`."}, 500)
    response.headers.update(SECURITY_HEADERS)  # this response does not pass the access middleware
    return response


def _animation_response(run: RunDirectory, content: bytes, format: str) -> Response:
    return Response(
        content, media_type=ANIMATION_MEDIA_TYPES[format], headers=_download_headers(f"{run.path.name}.{format}")
    )


def _download_headers(name: str) -> dict[str, str]:
    safe_name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return {"content-disposition": f'attachment; filename="{safe_name}"', "cache-control": "no-store"}
