"""OpenTelemetry traces, where the extra `traces` is installed and OTEL_EXPORTER_OTLP_ENDPOINT names a collector."""

from __future__ import annotations

import os
import time
from typing import Any, Final

from rankone.model.errors import RankoneError
from rankone.service.observe.context import RequestContext

_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class TracesMissing(RankoneError, RuntimeError):
    """Traces are asked for and their libraries are not installed."""


class Tracer:
    """One span a request and one for each of its parts; nothing at all where no collector is named.

    Raises:
        TracesMissing: a collector is named and the libraries are missing.
    """

    def __init__(self) -> None:
        self._provider: Any = _otlp_provider() if any(os.environ.get(name) for name in _VARIABLES) else None

    def record(self, name: str, context: RequestContext, status: int, seconds: float) -> None:
        """The request that has just ended, after `seconds`; within the caller's trace, if it sent a `traceparent`."""
        if self._provider is None:
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        tracer = self._provider.get_tracer("rankone")
        traceparent = context.headers.get(b"traceparent", b"").decode("latin-1")
        caller = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
        ended = time.time_ns()
        at = ended - int(1e9 * seconds)
        span = tracer.start_span(name, caller, kind=SpanKind.SERVER, start_time=at)
        span.set_attributes(
            {
                "http.response.status_code": status,
                "rankone.request_id": context.id,
                "rankone.images": context.num_images,
            }
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        for part, duration in context.parts.items():
            child = tracer.start_span(part, context=set_span_in_context(span), start_time=at)
            at += int(1e9 * duration)
            child.end(at)
        span.end(ended)

    def close(self) -> None:
        """Sends what has not been sent yet, which may take as long as the collector does; then there are no more traces."""
        if self._provider is not None:
            self._provider.shutdown()


def _otlp_provider() -> Any:
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
