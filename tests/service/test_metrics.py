"""What Prometheus can tell from the metrics: quantiles that are nearly right, what is served, and how much room is left."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rankone.service.app import create_app
from rankone.service.observe.metrics import Metrics
from rankone.service.settings import Settings
from tests.services import fail

pytestmark = pytest.mark.anyio


def samples(metrics: Metrics, name: str) -> list[tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return [(found.labels, found.value) for family in families for found in family.samples if found.name == name]


def quantile_as_prometheus(metrics: Metrics, q: float) -> float:
    """`histogram_quantile`: linear within the bucket that holds the rank."""
    buckets = sorted(
        (float(labels["le"]), count) for labels, count in samples(metrics, "rankone_request_seconds_bucket")
    )
    rank = q * buckets[-1][1]
    index = next(index for index, (_, count) in enumerate(buckets) if count >= rank)
    (low, before), (high, count) = (0.0, 0.0) if index == 0 else buckets[index - 1], buckets[index]
    return low + (high - low) * (rank - before) / (count - before)


@pytest.mark.parametrize("median_s", [0.001, 0.004, 0.03, 0.2, 1.7, 11.0, 60.0])
@pytest.mark.parametrize("spread", [0.0, 0.2, 1.0])
def test_p99_is_known_within_a_factor_of_1_3(median_s: float, spread: float) -> None:
    """Of times that are all alike, the worst that buckets can get, and of such with a long tail."""
    draw = np.random.default_rng(0)
    seconds = np.minimum(median_s * np.exp(spread * draw.standard_normal(2000)), 590)
    metrics = Metrics()
    for value in seconds:
        metrics.observe_request("POST", "/embed", 200, float(value), {})
    true, found = float(np.quantile(seconds, 0.99)), quantile_as_prometheus(metrics, 0.99)
    assert 1 / 1.3 <= found / true <= 1.3


def test_the_served_model_is_one_series_and_replaced() -> None:
    metrics = Metrics()
    metrics.model.info({"name": "a", "version": "1", "fingerprint": "f" * 64})
    metrics.model.info({"name": "a", "version": "2", "fingerprint": "e" * 64})
    assert samples(metrics, "rankone_model_info") == [({"name": "a", "version": "2", "fingerprint": "e" * 64}, 1.0)]


def test_free_room_is_that_of_the_folder_of_the_indexes(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.watch_disk(tmp_path)
    ((_, found),) = samples(metrics, "rankone_disk_free_bytes")
    disk = os.statvfs(tmp_path)
    assert found == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.2)
    metrics.watch_disk(tmp_path / "not made yet")
    ((_, found),) = samples(metrics, "rankone_disk_free_bytes")
    assert math.isnan(found)


async def test_ready_follows_readyz(app: FastAPI, settings: Settings) -> None:
    assert samples(create_app(settings, fail).state.metrics, "rankone_ready") == [({}, 0.0)]
    assert samples(app.state.metrics, "rankone_ready") == [({}, 1.0)]
    app.state.service.is_draining = True
    assert samples(app.state.metrics, "rankone_ready") == [({}, 0.0)]
