"""Prometheus metrics of a server. The only file that uses prometheus-client."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cardigan.serve.dynamic_batching import BatchHooks

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
IMAGES_BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 128, 256)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class PrometheusMetrics:
    """Metrics of one server, in a separate registry."""

    def __init__(self, model: dict[str, str]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "cardigan_requests", "Responses by path and status.", ["path", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "cardigan_request_seconds",
            "Seconds from request to response, /v1/images.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._images = Counter("cardigan_images", "Images sent.", ["media_type"], registry=registry)
        self._batch_images = Histogram(
            "cardigan_batch_images",
            "Requested images per batch, without padding.",
            buckets=IMAGES_BUCKETS,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "cardigan_batch_seconds", "Seconds to generate a batch.", buckets=SECONDS_BUCKETS, registry=registry
        )
        self._cancelled = Counter(
            "cardigan_requests_cancelled", "Requests that timed out or whose client disconnected.", registry=registry
        )
        self._queued_images = Gauge(
            "cardigan_queue_images", "Images that wait to be generated or encoded.", registry=registry
        )
        Info("cardigan_model", "The served model.", registry=registry).info(model)

    def hooks(self) -> BatchHooks:
        """Return the worker's callbacks."""
        return BatchHooks(self._observe_batch, self._cancelled.inc)

    def track_queue_length(self, queue_length: Callable[[], int]) -> None:
        """Read the queue length from this function at each scrape."""
        self._queued_images.set_function(queue_length)

    def count_request(self, path: str, status: int) -> None:
        """Count one response."""
        self._requests.labels(path, status).inc()

    def count_images(self, media_type: str, count: int, seconds: float) -> None:
        """Count the images of one response and record its time."""
        self._images.labels(media_type).inc(count)
        self._request_seconds.observe(seconds)

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)

    def _observe_batch(self, num_images: int, seconds: float) -> Any:
        self._batch_images.observe(num_images)
        self._batch_seconds.observe(seconds)
