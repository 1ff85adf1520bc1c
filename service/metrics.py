"""What the service counts and times, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class Metrics:
    """The counters of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rankone_requests", "Requests answered", ("method", "route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "rankone_request_seconds", "From request to answer", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self.engine_seconds = Histogram(
            "rankone_engine_seconds", "One run of the engine", buckets=_SECONDS, registry=self.registry
        )
        self.images = Counter("rankone_images", "Images run through the engine", registry=self.registry)
        self.index_items = Gauge("rankone_index_items", "Items in the index", ("index",), registry=self.registry)

    def watch_index(self, name: str, count: Callable[[], int]) -> None:
        """Reads the number of items of this index whenever the metrics are read."""
        self.index_items.labels(name).set_function(count)


class MetricsMiddleware:
    """Counts and times every HTTP request by its route's template, so that ids do not become labels."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"  # or clients could make up series
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)
