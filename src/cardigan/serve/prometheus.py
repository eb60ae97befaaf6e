"""The numbers of a server, for Prometheus. The only file that knows prometheus-client."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cardigan.serve.dynamic_batching import BatchHooks

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
IMAGES_BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 128, 256)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class PrometheusMetrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self, model: dict[str, str]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "cardigan_requests", "Requests answered, by path and status.", ["path", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "cardigan_request_seconds",
            "From the request to its answer, /v1/images.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._images = Counter("cardigan_images", "Pictures sent.", ["media_type"], registry=registry)
        self._batch_images = Histogram(
            "cardigan_batch_images",
            "Pictures of a batch that were wanted.",
            buckets=IMAGES_BUCKETS,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "cardigan_batch_seconds", "What a batch took to draw.", buckets=SECONDS_BUCKETS, registry=registry
        )
        self._cancelled = Counter(
            "cardigan_requests_cancelled", "Requests whose asker left, or waited too long.", registry=registry
        )
        self._queued_images = Gauge(
            "cardigan_queue_images", "Pictures that wait: to be drawn, or to be encoded.", registry=registry
        )
        Info("cardigan_model", "What is served.", registry=registry).info(model)

    def hooks(self) -> BatchHooks:
        """Return what the worker tells."""
        return BatchHooks(self._observe_batch, self._cancelled.inc)

    def track_queue_length(self, queue_length: Callable[[], int]) -> None:
        """Ask this for the length of the queue, whenever it is to be told."""
        self._queued_images.set_function(queue_length)

    def count_request(self, path: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(path, status).inc()

    def count_images(self, media_type: str, count: int, seconds: float) -> None:
        """Count what was sent."""
        self._images.labels(media_type).inc(count)
        self._request_seconds.observe(seconds)

    def render(self) -> bytes:
        """Return all of them, as they are scraped."""
        return generate_latest(self._registry)

    def _observe_batch(self, num_images: int, seconds: float) -> Any:
        self._batch_images.observe(num_images)
        self._batch_seconds.observe(seconds)
