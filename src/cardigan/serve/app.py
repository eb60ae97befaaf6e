"""The server's routes and handlers.

Access control is in `access.py`, batching in `dynamic_batching.py`.
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
from cardigan.figures.c2pa_manifest import SigningKey
from cardigan.http.endpoint import Endpoint
from cardigan.http.errors import BadRequest, ClientDisconnected
from cardigan.http.responses import disconnected_response, json_response
from cardigan.serve.access import AccessMiddleware, AccessPolicy
from cardigan.serve.demo_page import CONTENT_SECURITY_POLICY, PAGE
from cardigan.serve.dynamic_batching import DynamicBatcher, Job, QueueClosed, QueueFull
from cardigan.serve.encodings import ENCODERS, NotAcceptable, SampleResponse, check_sheet_size, negotiate_media_type
from cardigan.serve.openapi import openapi_schema
from cardigan.serve.prometheus import CONTENT_TYPE, PrometheusMetrics
from cardigan.serve.sample_request import SampleRequest, TooManyImages, parse_sample_request
from cardigan.serve.served_model import ServedModel, model_info

STALLED_SECONDS = 60.0
"""A batch that takes longer than this makes `/healthz` report `stalled`."""
THREADED_PARSE_BYTES = 65_536
"""JSON bodies from this size on are parsed in a thread, so that they do not block the event loop."""
CORS_ALLOW_HEADERS, CORS_EXPOSE_HEADERS = (
    ["authorization", "content-type"],
    ["cardigan-seed", "cardigan-seeds", "cardigan-labels", "retry-after"],
)
"""Headers that pages of other origins may send and read."""
MAX_HEADER_VALUES = 64
"""Maximum number of seeds or labels in a response header. Longer lists are omitted."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits of requests and of the queue."""

    max_images: int = 256
    """Maximum images per request."""
    max_queued_images: int = 2_048
    """Maximum images that wait to be generated or encoded, over all requests."""
    timeout_seconds: float = 60.0
    """Maximum time from the request to its response."""

    def max_body_bytes(self, latent_size: int) -> int:
        """Return the maximum request size: `max_images` latents as JSON text."""
        return 65_536 + self.max_images * (32 * latent_size + 128)


class RequestTimeout(Exception):
    """The images were not generated in time."""


class SamplingService:
    """A model, its request queue, and the HTTP handlers."""

    def __init__(
        self, served_model: ServedModel, limits: RequestLimits, mark: bool = True, signing: SigningKey | None = None
    ) -> None:
        """Without `mark`, images do not say that they are generated. With `signing` they have C2PA manifests."""
        self.served_model, self.limits, self.signing = served_model, limits, signing
        self.marked_sha256 = served_model.marked_sha256 if mark else ""
        self.metrics = PrometheusMetrics(
            {"name": served_model.name, "sha256": served_model.sha256, "backend": served_model.backend}
        )
        self.batcher = DynamicBatcher(served_model, limits.max_queued_images, self.metrics.hooks())
        self.metrics.track_queue_length(lambda: self.batcher.num_queued)
        limits_info = {
            "limits": {
                "max_images": limits.max_images,
                "max_queued_images": limits.max_queued_images,
                "timeout_seconds": limits.timeout_seconds,
            }
        }
        self._model_info = json.dumps({**model_info(served_model), **limits_info}).encode()
        self._openapi_schema = json.dumps(openapi_schema(served_model, limits.max_images)).encode()

    async def images(self, request: Request) -> Response:
        """`POST /v1/images`."""
        started_at = time.monotonic()
        media_type = negotiate_media_type(request.headers.get("accept"))
        body = await request.body()
        parse = partial(parse_sample_request, body, self.served_model, self.limits.max_images)
        sample_request = parse() if len(body) < THREADED_PARSE_BYTES else await to_thread.run_sync(parse)
        check_sheet_size(media_type, sample_request, self.served_model.spec.height, self.served_model.spec.width)
        label_lists: list[list[int] | None] = []

        def encode(pixels: Any, labels: Any) -> bytes:
            response = SampleResponse(pixels, labels, sample_request, self.marked_sha256, self.signing)
            label_lists.append(response.label_list)
            return ENCODERS[media_type](response)

        content = await self._wait_for_job(self.batcher.submit(sample_request, encode), request)
        self.metrics.count_images(media_type, sample_request.count, time.monotonic() - started_at)
        return Response(content, headers=_image_headers(sample_request, label_lists[0]), media_type=media_type)

    async def _wait_for_job(self, job: Job, request: Request) -> bytes:
        """Return a job's content; raises ClientDisconnected and RequestTimeout."""
        content_future = asyncio.wrap_future(job.future)
        # The body is complete, so the next message is the disconnect.
        disconnect_task = asyncio.ensure_future(request.receive())
        try:
            finished, _ = await asyncio.wait(
                {content_future, disconnect_task},
                timeout=self.limits.timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if content_future in finished:
                return content_future.result()
            raise ClientDisconnected if disconnect_task in finished else RequestTimeout
        finally:
            disconnect_task.cancel()
            if not content_future.done():
                self.batcher.cancel(job)

    async def model(self, request: Request) -> Response:
        """`GET /v1/model`."""
        return Response(self._model_info, media_type="application/json")

    async def health(self, request: Request) -> Response:
        """`GET /healthz`: 200 if the server generates images, else 503."""
        if not self.batcher.is_alive:
            return json_response({"status": "stopping"}, 503)
        if self.batcher.stalled_seconds() > STALLED_SECONDS:
            return json_response({"status": "stalled"}, 503)
        return json_response({"status": "ready", "queued_images": self.batcher.num_queued})

    async def prometheus_metrics(self, request: Request) -> Response:
        """`GET /metrics`."""
        return Response(self.metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`."""
        return Response(self._openapi_schema, media_type="application/json")

    async def page(self, request: Request) -> Response:
        """`GET /`."""
        return Response(PAGE, headers={"content-security-policy": CONTENT_SECURITY_POLICY}, media_type="text/html")


class RequestCounterMiddleware:
    """Counts every response by path and status."""

    def __init__(self, app: Any, metrics: PrometheusMetrics, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward the request and count its response."""

        async def counting_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.metrics.count_request(scope["path"] if scope["path"] in self.paths else "other", message["status"])
            await send(message)

        await self.app(scope, receive, counting_send)


def build_app(service: SamplingService, endpoint: Endpoint, origins: tuple[str, ...] = ()) -> Starlette:
    """Return the server as an ASGI application."""
    routes = [
        Route("/", service.page),
        Route("/v1/images", service.images, methods=["POST"]),
        Route("/v1/model", service.model),
        Route("/healthz", service.health),
        Route("/metrics", service.prometheus_metrics),
        Route("/openapi.json", service.openapi),
    ]
    access_policy = AccessPolicy(
        endpoint, origins, service.limits.max_body_bytes(service.served_model.config.latent.size)
    )
    middleware = [
        Middleware(RequestCounterMiddleware, metrics=service.metrics, paths=frozenset(route.path for route in routes)),
        Middleware(AccessMiddleware, policy=access_policy),
    ]
    if origins:
        middleware.insert(
            1,
            Middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=CORS_ALLOW_HEADERS,
                expose_headers=CORS_EXPOSE_HEADERS,
            ),
        )
    exception_handlers: dict[Any, Any] = {
        CardiganError: _cardigan_error_response,
        HTTPException: _http_error_response,
        QueueFull: _queue_full_response,
        QueueClosed: _stopping_response,
        RequestTimeout: _timeout_response,
    }
    exception_handlers |= {
        ClientDisconnected: disconnected_response,
        ClientDisconnect: disconnected_response,
        Exception: _server_error_response,
    }
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=exception_handlers)
    app.state.service = service
    return app


def _image_headers(sample_request: SampleRequest, labels: list[int] | None) -> dict[str, str]:
    """Return the response headers that every media type has."""
    headers = {"cache-control": "no-store"}
    if sample_request.seed is not None:
        headers["cardigan-seed"] = str(sample_request.seed)
    for name, values in (("cardigan-seeds", sample_request.seeds), ("cardigan-labels", labels)):
        if values is not None and len(values) <= MAX_HEADER_VALUES:
            headers[name] = ",".join(map(str, values))
    return headers


async def _cardigan_error_response(request: Request, error: Exception) -> Response:
    status_by_type = ((BadRequest, 400), (TooManyImages, 413), (NotAcceptable, 406))
    return json_response(
        {"error": str(error)},
        next((status for error_type, status in status_by_type if isinstance(error, error_type)), 500),
    )


async def _http_error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: f"{request.url.path[:200]} does not exist: see /openapi.json.",
        405: f"{request.url.path} does not support the method {request.method[:20]}.",
    }
    return json_response(
        {"error": messages.get(error.status_code, error.detail)}, error.status_code, dict(error.headers or {})
    )


async def _queue_full_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueueFull)
    message = f"The queue is full: try again in {error.retry_after_seconds} s."
    return json_response({"error": message}, 429, {"retry-after": str(error.retry_after_seconds)})


async def _stopping_response(request: Request, error: Exception) -> Response:
    return json_response(
        {"error": "The server is stopping: use another one."}, 503, {"retry-after": "1", "connection": "close"}
    )


async def _timeout_response(request: Request, error: Exception) -> Response:
    seconds = request.app.state.service.limits.timeout_seconds
    return json_response(
        {"error": f"The images were not generated within {seconds:g} s: request fewer, or try again later."}, 504
    )


async def _server_error_response(request: Request, error: Exception) -> Response:
    traceback.print_exception(error, file=sys.stderr)
    request.app.state.service.metrics.count_request("other", 500)  # this response bypasses RequestCounterMiddleware
    return json_response({"error": "Internal server error: see the server's log."}, 500)
