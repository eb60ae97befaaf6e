"""The server's addresses: which of them is answered by what.

Knows HTTP; who may ask is said in `guard.py`, what is drawn when in `batching.py`.
"""

import asyncio
import json
import sys
import time
import traceback
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from cardigan.errors import CardiganError
from cardigan.serve.asking import Order, TooMany, Wrong, read_order
from cardigan.serve.batching import Batching, Closed, Full, Job
from cardigan.serve.encodings import KINDS, NotAcceptable, Pictures, check_size, wanted
from cardigan.serve.guard import Entrance, Guard
from cardigan.serve.metrics import CONTENT_TYPE, Metrics
from cardigan.serve.model import Served, facts
from cardigan.serve.openapi import description
from cardigan.serve.page import CONTENT, POLICY
from cardigan.web.door import Door

STUCK_SECONDS = 60.0
"""A batch that takes longer than this says that the server is not well."""
LONG_BODY = 65_536
"""Bytes of JSON that are read in a thread, since they would hold everybody up."""
ASKED, TOLD = ["authorization", "content-type"], ["cardigan-seed", "cardigan-seeds", "cardigan-labels", "retry-after"]
"""Headers that pages of others may send, and read."""
TOLD_SEEDS = 64
"""So many seeds or labels are told in a header at most."""


@dataclass(frozen=True)
class Limits:
    """What is given to one request at most."""

    images: int = 256
    queue: int = 2_048
    """Pictures that may wait to be drawn or encoded, of all requests together."""
    seconds: float = 60.0
    """From the request to its answer."""

    def most_bytes(self, latent: int) -> int:
        """Return how long a request may be: as many rows of z as pictures, written out."""
        return 65_536 + self.images * (32 * latent + 128)


class TooLate(Exception):
    """The pictures were not drawn in time."""


class Left(Exception):
    """Who asked has gone."""


class Serving:
    """A model, the queue before it, and everything that answers about them."""

    def __init__(self, served: Served, limits: Limits) -> None:
        self.served, self.limits = served, limits
        self.metrics = Metrics({"name": served.name, "sha256": served.sha256, "backend": served.backend})
        self.batching = Batching(served, limits.queue, self.metrics.observer())
        self.metrics.follow(lambda: self.batching.waiting)
        limited = {"limits": {"images": limits.images, "queue": limits.queue, "seconds": limits.seconds}}
        self._facts = json.dumps({**facts(served), **limited}).encode()
        self._description = json.dumps(description(served, limits.images)).encode()

    async def images(self, request: Request) -> Response:
        """`POST /v1/images`."""
        began = time.monotonic()
        kind = wanted(request.headers.get("accept"))
        body = await request.body()
        read = partial(read_order, body, self.served, self.limits.images)
        order = read() if len(body) < LONG_BODY else await to_thread.run_sync(read)
        check_size(kind, order, self.served.spec.height, self.served.spec.width)
        told: list[list[int] | None] = []

        def finish(pixels: Any, labels: Any) -> bytes:
            pictures = Pictures(pixels, labels, order)
            told.append(pictures.label_list)
            return KINDS[kind](pictures)

        content = await self._awaited(self.batching.submit(order, finish), request)
        self.metrics.drawn(kind, order.count, time.monotonic() - began)
        return Response(content, headers=_headers(order, told[0]), media_type=kind)

    async def _awaited(self, job: Job, request: Request) -> bytes:
        """Return the answer of a job; raises Left when the asker does, and TooLate."""
        answer = asyncio.wrap_future(job.future)
        leaving = asyncio.ensure_future(request.receive())  # the body is whole: what comes now is that nobody is there any more
        try:
            done, _ = await asyncio.wait({answer, leaving}, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if answer in done:
                return answer.result()
            raise Left if leaving in done else TooLate
        finally:
            leaving.cancel()
            if not answer.done():
                self.batching.cancel(job)

    async def model(self, request: Request) -> Response:
        """`GET /v1/model`."""
        return Response(self._facts, media_type="application/json")

    async def health(self, request: Request) -> Response:
        """`GET /healthz`: 200 where pictures are drawn."""
        if not self.batching.is_alive:
            return _answer({"status": "stopping"}, 503)
        if self.batching.stuck_seconds() > STUCK_SECONDS:
            return _answer({"status": "stuck"}, 503)
        return _answer({"status": "ready", "waiting": self.batching.waiting})

    async def numbers(self, request: Request) -> Response:
        """`GET /metrics`."""
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`."""
        return Response(self._description, media_type="application/json")

    async def page(self, request: Request) -> Response:
        """`GET /`."""
        return Response(CONTENT, headers={"content-security-policy": POLICY}, media_type="text/html")


class Counted:
    """Counts every answer, whoever gave it."""

    def __init__(self, app: Any, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on."""

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.metrics.answered(scope["path"] if scope["path"] in self.paths else "other", message["status"])
            await send(message)

        await self.app(scope, receive, counted)


def build_app(serving: Serving, door: Door, origins: tuple[str, ...] = ()) -> Starlette:
    """Return the whole server as an ASGI application."""
    routes = [
        Route("/", serving.page),
        Route("/v1/images", serving.images, methods=["POST"]),
        Route("/v1/model", serving.model),
        Route("/healthz", serving.health),
        Route("/metrics", serving.numbers),
        Route("/openapi.json", serving.openapi),
    ]
    entrance = Entrance(door, origins, serving.limits.most_bytes(serving.served.config.latent.size))
    middleware = [
        Middleware(Counted, metrics=serving.metrics, paths=frozenset(route.path for route in routes)),
        Middleware(Guard, entrance=entrance),
    ]
    if origins:
        middleware.insert(
            1, Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=ASKED, expose_headers=TOLD)
        )
    told: dict[Any, Any] = {CardiganError: _sentence, HTTPException: _status, Full: _full, Closed: _closed, TooLate: _late}
    told |= {Left: _left, ClientDisconnect: _left, Exception: _failed}
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=told)
    app.state.serving = serving
    return app


def _headers(order: Order, labels: list[int] | None) -> dict[str, str]:
    """Return what is told beside the pictures, whatever their kind."""
    headers = {"cache-control": "no-store"}
    if order.seed is not None:
        headers["cardigan-seed"] = str(order.seed)
    for name, values in (("cardigan-seeds", order.seeds), ("cardigan-labels", labels)):
        if values is not None and len(values) <= TOLD_SEEDS:
            headers[name] = ",".join(map(str, values))
    return headers


async def _sentence(request: Request, error: Exception) -> Response:
    kinds = ((Wrong, 400), (TooMany, 413), (NotAcceptable, 406))
    return _answer({"error": str(error)}, next((status for kind, status in kinds if isinstance(error, kind)), 500))


async def _status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {
        404: f"There is nothing at {request.url.path[:200]}: see /openapi.json.",
        405: f"{request.url.path} is not asked by {request.method[:20]}.",
    }
    return _answer({"error": known.get(error.status_code, error.detail)}, error.status_code, dict(error.headers or {}))


async def _full(request: Request, error: Exception) -> Response:
    assert isinstance(error, Full)
    sentence = f"Too many pictures wait already: ask again in {error.seconds} s."
    return _answer({"error": sentence}, 429, {"retry-after": str(error.seconds)})


async def _closed(request: Request, error: Exception) -> Response:
    return _answer({"error": "The server is stopping: ask another."}, 503, {"retry-after": "1", "connection": "close"})


async def _late(request: Request, error: Exception) -> Response:
    seconds = request.app.state.serving.limits.seconds
    return _answer({"error": f"The pictures were not drawn within {seconds:g} s: ask for fewer, or later."}, 504)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it


async def _failed(request: Request, error: Exception) -> Response:
    traceback.print_exception(error, file=sys.stderr)
    request.app.state.serving.metrics.answered("other", 500)  # this one answer is given outside of the counter
    return _answer({"error": "The server failed at this; it says more where it was started."}, 500)


def _answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content).encode(), status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json")
