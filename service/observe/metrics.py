"""What the service counts and times, for Prometheus."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_SECONDS: Final = tuple(float(f"{10 ** (step / 9):.3g}") for step in range(-30, 26))
"""From 0.46 ms to 10 minutes, each 1.29 times the one before: so wrong can a quantile that Prometheus computes be."""
_WORKERS: Final = ("decode", "engine", "batch")
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
_REFUSALS: Final = {
    401: "no valid key",
    403: "scope",
    408: "slow body",
    413: "too large",
    415: "type",
    422: "invalid",
    429: "busy",
    499: "client gone",
    503: "not ready",
    504: "deadline",
    507: "disk full",
}


class Metrics:
    """What one app counts and times, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self._requests = Counter("rankone_requests", "Requests answered", ("method", "route", "status"), registry=own)
        self._request_seconds = Histogram(
            "rankone_request_seconds", "From request to answer", ("route",), buckets=_SECONDS, registry=own
        )
        self._part_seconds = Histogram(
            "rankone_part_seconds", "Where the time of requests went", ("part",), buckets=_SECONDS, registry=own
        )
        self._refusals = Counter("rankone_refusals", "Requests not served, by reason", ("reason",), registry=own)
        self._engine_seconds = Histogram(
            "rankone_engine_seconds", "One run of the engine", buckets=_SECONDS, registry=own
        )
        self._batch_images = Histogram("rankone_batch_images", "Images in a run", buckets=_BATCHES, registry=own)
        self._images = Counter("rankone_images", "Images run through the engine", registry=own)
        self.queue = Gauge("rankone_queue_images", "Images in work, from admission to answer", registry=own)
        self.deaths = Counter(
            "rankone_worker_deaths",
            "Decode processes and threads that ended and were replaced",
            ("worker",),
            registry=own,
        )
        for worker in _WORKERS:
            self.deaths.labels(worker)  # so that it starts at 0: Prometheus sees no rise in a new series
        self.engine = Info("rankone_engine", "What runs the network", registry=own)
        self.model = Info("rankone_model", "The bundle that is served", registry=own)
        self.ready = Gauge("rankone_ready", "1 while requests are answered", registry=own)
        self._disk_free = Gauge(
            "rankone_disk_free_bytes", "Free space for the indexes, NaN where it cannot be read", registry=own
        )
        self._gpu_memory: Gauge | None = None
        self.index_items = IndexItems()
        own.register(self.index_items)

    def observe_request(self, method: str, route: str, status: int, seconds: float, parts: Mapping[str, float]) -> None:
        """A request that was answered, and where its time went."""
        self._requests.labels(method, route, status).inc()
        self._request_seconds.labels(route).observe(seconds)
        for part, part_seconds in parts.items():
            self._part_seconds.labels(part).observe(part_seconds)
        if (reason := _REFUSALS.get(status)) is not None:
            self._refusals.labels(reason).inc()

    def observe_batch(self, num_images: int, seconds: float) -> None:
        """A run of the engine."""
        self._engine_seconds.observe(seconds)
        self._batch_images.observe(num_images)
        self._images.inc(num_images)

    def watch_disk(self, folder: Path) -> None:
        """Reads the free space of the folder's disk whenever the metrics are read."""
        self._disk_free.set_function(partial(_free_bytes, folder))

    def watch_gpu_memory(self, used_bytes: Callable[[], int]) -> None:
        """Reads the memory in use on the GPU whenever the metrics are read; without one, there is no such metric."""
        if self._gpu_memory is None:
            self._gpu_memory = Gauge("rankone_gpu_memory_bytes", "Memory in use on the GPU", registry=self.registry)
        self._gpu_memory.set_function(used_bytes)


class IndexItems(Collector):
    """A series for each index that exists when the metrics are read, by `counts`, so that dropped indexes disappear."""

    def __init__(self) -> None:
        self.counts: Callable[[], Mapping[str, int]] = dict

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("rankone_index_items", "Items in the index", labels=("index",))
        for name, count in self.counts().items():
            family.add_metric([name], count)
        yield family


def _free_bytes(folder: Path) -> float:
    """What a user without privileges may still write."""
    try:
        found = os.statvfs(folder)
    except OSError:  # it is not made before the first start is complete, or the disk is gone
        return math.nan
    return float(found.f_bavail * found.f_frsize)
