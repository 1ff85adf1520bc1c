"""OpenTelemetry traces: FastAPI makes a span of each request; this adds its parts, and sends spans to a collector."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from opentelemetry import trace

from rankone.model.errors import RankoneError
from rankone.service.observe.context import RequestContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class TracesMissing(RankoneError, RuntimeError):
    """Traces are asked for and their libraries are not installed."""


def otlp_provider() -> TracerProvider | None:
    """Sends spans to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names; None where it names none.

    Raises:
        TracesMissing: a collector is named and the extra `traces` is not installed.
    """
    if not any(os.environ.get(name) for name in _VARIABLES):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracesMissing(
            f"{_VARIABLES[0]} is set, but OpenTelemetry is not installed: pip install 'rankone[traces]', or unset it"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "rankone"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def trace_parts(tracer: trace.Tracer, context: RequestContext, seconds: float) -> None:
    """Adds to the span of the current request, which began `seconds` ago, one span for each of its parts, in a row."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    span.set_attributes({"rankone.request_id": context.id, "rankone.images": context.num_images})
    at = time.time_ns() - int(1e9 * seconds)
    for part, duration in context.parts.items():
        child = tracer.start_span(part, start_time=at)
        at += int(1e9 * duration)
        child.end(at)
