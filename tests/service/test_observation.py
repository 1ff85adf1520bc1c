"""What the service says of a request: headers, log, traces."""

from __future__ import annotations

import json
import logging
import sys

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from rankone.service.observe.logs import JsonFormatter, TextFormatter
from rankone.service.observe.metrics import Metrics
from rankone.service.observe.traces import TracesMissing, otlp_provider
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.services import client_of, multipart, serving

pytestmark = pytest.mark.anyio


def timing(header: str) -> dict[str, float]:
    return {name: float(ms) for name, _, ms in (part.strip().partition(";dur=") for part in header.split(","))}


async def test_every_answer_says_where_its_time_went(http: httpx.AsyncClient, images: list[bytes]) -> None:
    response = await http.post("/embed", files=multipart(images[:5]))
    parts = timing(response.headers["server-timing"])
    assert list(parts) == ["decode", "queue", "engine", "encode", "total"]
    assert all(ms >= 0 for ms in parts.values())
    assert parts["total"] >= parts["decode"] + parts["queue"] + parts["engine"] + parts["encode"] - 0.01
    assert list(timing((await http.get("/healthz")).headers["server-timing"])) == ["total"]


@pytest.mark.parametrize(("sent", "is_kept"), [("abc-1.2_X", True), ("with space", False), ("x" * 129, False)])
async def test_a_request_has_an_id(http: httpx.AsyncClient, sent: str, is_kept: bool) -> None:
    found = (await http.get("/healthz", headers={"x-request-id": sent})).headers["x-request-id"]
    assert (found == sent) == is_kept
    assert is_kept or len(found) == 32


async def test_the_log_has_a_line_a_request_and_none_for_probes(
    http: httpx.AsyncClient, images: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rankone.access")
    await http.post("/embed", files=multipart(images[:2]), headers={"x-request-id": "mine"})
    for path in ("/healthz", "/readyz", "/metrics"):
        await http.get(path)
    (record,) = [record for record in caplog.records if record.name == "rankone.access"]
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["message"], entry["request_id"], entry["route"], entry["images"]) == (
        "POST /embed 200", "mine", "/embed", 2,
    )  # fmt: skip
    assert set(entry["parts_ms"]) == {"decode", "queue", "engine", "encode"}
    assert entry["client"] == "127.0.0.1"
    assert TextFormatter().format(record).endswith(" ms 127.0.0.1 mine")


async def test_nobody_writes_lines_of_their_own_into_the_log(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rankone.access")
    await http.get("/x%0AINFO%20rankone:%20forged")
    await http.get("/%C3%A4")
    assert [record.getMessage() for record in caplog.records if record.name == "rankone.access"] == [
        "GET /x%0AINFO%20rankone:%20forged 404", "GET /%C3%A4 404",
    ]  # fmt: skip


async def test_a_fault_of_ours_has_an_id_too(
    http: httpx.AsyncClient, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    app.state.service.runtime = "nothing that a route can use"
    response = await http.get("/info", headers={"x-request-id": "mine"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "mine")
    assert response.headers["content-type"] == "application/problem+json"
    assert "a fault of the service in request mine" in caplog.text


def test_a_traceback_is_one_line_of_json() -> None:
    try:
        raise ValueError("inside")
    except ValueError:
        record = logging.LogRecord("rankone", logging.ERROR, "", 0, "it %s", ("failed",), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ValueError: inside" in json.loads(line)["traceback"]
    assert json.loads(line)["message"] == "it failed"


async def test_traces_have_a_span_for_each_part(
    settings: Settings, loaded: Runtime, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the caller's trace; sent at the latest when the service ends."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("rankone.service.app.otlp_provider", lambda: provider)
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    async with serving(settings, loaded) as app, client_of(app) as http:
        headers = {"traceparent": f"00-{trace}-{caller}-01", "x-request-id": "mine"}
        response = await http.post("/embed", files=multipart(images[:2]), headers=headers)
        await http.get("/info", headers={"traceparent": "nonsense"})
    *parts, whole, _, other = exporter.get_finished_spans()
    assert [part.name for part in parts] == ["decode", "queue", "engine", "encode"]
    for part, ms in zip(parts, timing(response.headers["server-timing"]).values(), strict=False):
        assert part.parent is not None
        assert part.parent.span_id == whole.context.span_id
        assert ((part.end_time or 0) - (part.start_time or 0)) / 1e6 == pytest.approx(ms, abs=1e-2)
    assert parts[1].start_time == parts[0].end_time
    assert whole.parent is not None
    assert (whole.name, whole.context.trace_id, whole.parent.span_id) == (
        "POST /embed",
        int(trace, 16),
        int(caller, 16),
    )
    attributes = dict(whole.attributes or {})
    assert (attributes["rankone.request_id"], attributes["rankone.images"]) == ("mine", 2)
    assert attributes["http.response.status_code"] == 200
    assert other.parent is None


def test_traces_are_not_made_where_nobody_collects_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert otlp_provider() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    provider = otlp_provider()
    assert provider is not None
    provider.shutdown()
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracesMissing, match="pip install 'rankone\\[traces\\]'"):
        otlp_provider()


def test_the_memory_of_a_gpu_is_a_metric_where_there_is_one() -> None:
    metrics = Metrics()
    assert b"rankone_gpu_memory_bytes" not in generate_latest(metrics.registry)
    for used in (3, 5):  # a second model takes the place of the first
        metrics.watch_gpu_memory(lambda used=used: used)  # type: ignore[misc]
    assert b"rankone_gpu_memory_bytes 5.0" in generate_latest(metrics.registry)


def test_the_indexes_of_the_metrics_are_those_there_are() -> None:
    metrics, counts = Metrics(), {"old": 3}
    metrics.index_items.counts = lambda: counts
    assert b'rankone_index_items{index="old"} 3.0' in generate_latest(metrics.registry)
    del counts["old"]
    counts["new"] = 5
    found = generate_latest(metrics.registry)
    assert b'rankone_index_items{index="new"} 5.0' in found
    assert b"old" not in found
