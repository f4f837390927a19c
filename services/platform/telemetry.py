"""Traces and request metrics: OpenTelemetry with W3C Trace Context, Prometheus counters.

Spans carry only the attributes of `ALLOWED_ATTRIBUTES`: whatever else code sets on a span is dropped before export, and
so are exception messages, since either may hold patient data.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter, Histogram

from services.platform.config import Settings

ALLOWED_ATTRIBUTES = frozenset(
    {
        "error.type",
        "exception.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "messaging.consumer.group.name",
        "messaging.destination.name",
        "messaging.destination.partition.id",
        "messaging.kafka.offset",
        "messaging.message.id",
        "messaging.operation.type",
        "messaging.system",
        "osler.attempt",
        "osler.count",
        "osler.effect",
        "osler.event.id",
        "osler.event.type",
        "osler.method.version",
        "osler.model",
        "osler.modality",
        "osler.outcome",
        "osler.refusal.reason",
        "osler.room",
        "rpc.grpc.status_code",
        "rpc.method",
        "rpc.service",
        "rpc.system",
        "server.port",
    }
)
LONGEST_VALUE = 200

Kind = Literal["internal", "server", "client", "producer", "consumer"]

_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_PROPAGATOR = TraceContextTextMapPropagator()


def clean(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes that may leave the process; long text is cut."""
    kept = {key: value for key, value in (attributes or {}).items() if key in ALLOWED_ATTRIBUTES}
    return {key: value[:LONGEST_VALUE] if isinstance(value, str) else value for key, value in kept.items()}


class CleaningProcessor(SpanProcessor):
    """Hands finished spans, cleaned, to the processors added to it."""

    def __init__(self) -> None:
        self._targets: tuple[SpanProcessor, ...] = ()

    def add(self, target: SpanProcessor) -> None:
        self._targets = (*self._targets, target)

    def remove(self, target: SpanProcessor) -> None:
        self._targets = tuple(other for other in self._targets if other is not target)

    def on_end(self, span: ReadableSpan) -> None:
        if not self._targets:
            return
        cleaned = ReadableSpan(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=clean(span.attributes),
            events=[Event(event.name, clean(event.attributes), event.timestamp) for event in span.events],
            links=span.links,
            kind=span.kind,
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        for target in self._targets:
            target.on_end(cleaned)

    def shutdown(self) -> None:
        for target in self._targets:
            target.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        flushed = [target.force_flush(timeout_millis) for target in self._targets]
        return all(flushed)


_lock = threading.Lock()
_processor = CleaningProcessor()
_provider: TracerProvider | None = None
_at_end: list[Callable[[], object]] = []


def setup(service_name: str, settings: Settings) -> None:
    """Sets up traces and metrics once for this process; later calls change nothing."""
    configured = settings.telemetry
    exporters: list[SpanProcessor] = []
    base = configured.otlp_endpoint.rstrip("/")
    if base:
        exporters.append(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces")))
    if configured.console:
        exporters.append(SimpleSpanProcessor(ConsoleSpanExporter()))
    if not _install(configured.service_name or service_name):
        return
    for exporter in exporters:
        _processor.add(exporter)
    if base:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{base}/v1/metrics"))
        resource = Resource.create({"service.name": configured.service_name or service_name})
        meters = MeterProvider(resource=resource, metric_readers=[reader])
        metrics.set_meter_provider(meters)
        _at_end.append(lambda: meters.force_flush(5_000))


def _install(service_name: str) -> bool:
    global _provider
    with _lock:
        if _provider is not None:
            return False
        _provider = TracerProvider(resource=Resource.create({"service.name": service_name}))
        _provider.add_span_processor(_processor)
        trace.set_tracer_provider(_provider)
        return True


def shutdown() -> None:
    """Sends what is still buffered. Call once, at the end of the process."""
    if _provider is not None:
        _provider.force_flush(5_000)
    for flush in _at_end:
        flush()


@contextmanager
def recorded_spans() -> Iterator[InMemorySpanExporter]:
    """Collects the spans that finish inside the block, as an exporter would get them. For tests."""
    _install("osler-test")
    exporter: SpanExporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    _processor.add(processor)
    try:
        yield exporter  # type: ignore[misc]
    finally:
        _processor.remove(processor)


def context_from(traceparent: str | None) -> Context | None:
    """The trace context in a W3C `traceparent`; None without one, which means: stay in the current trace."""
    if not traceparent:
        return None
    return _PROPAGATOR.extract({"traceparent": traceparent}, context=Context())


def traceparent() -> str:
    """The current trace context as W3C `traceparent`; empty outside a trace."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def traceparent_for(key: bytes, name: str) -> str:
    """The W3C `traceparent` of the trace that belongs to a thing, the same in every process that has the key.

    What arrives in pieces, over several associations and at several pods, is so one trace, without a word between them.
    A keyed hash: who reads traces learns nothing of the name.
    """
    digest = hmac.new(key, name.encode(), hashlib.sha256).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def inject(carrier: MutableMapping[str, str]) -> None:
    """Puts `traceparent` into outgoing headers or metadata."""
    _PROPAGATOR.inject(carrier)


def trace_id() -> str:
    """The current trace id, 32 hexadecimal digits; empty outside a trace."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Iterator[Span]:
    """A span around a block, the child of `parent` (a traceparent) or else of the current span.

    An exception that leaves the block marks the span as failed with its type, never its message.
    """
    tracer = trace.get_tracer("osler")
    started = tracer.start_span(name, context_from(parent), _KINDS[kind], clean(attributes))
    token = otel_context.attach(trace.set_span_in_context(started, context_from(parent)))
    try:
        yield started
    except BaseException as error:
        started.set_attribute("error.type", type(error).__name__)
        started.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        started.end()
        otel_context.detach(token)


_REQUESTS = Counter("osler_requests_total", "Requests served.", ("door", "method", "code"))
_SECONDS = Histogram(
    "osler_request_seconds",
    "Time to serve a request, in seconds.",
    ("door", "method"),
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)


_DURATION = metrics.get_meter("osler").create_histogram("osler.request.duration", unit="s")


@contextmanager
def measured(door: str, method: str) -> Iterator[dict[str, str]]:
    """Counts and times one request. The block sets `result["code"]`, and `result["method"]` when it knows better; a
    crash counts as `ERROR`.

    `method` must be a route or RPC name, never a path with identifiers.
    """
    result = {"code": "OK", "method": method}
    begun = time.perf_counter()
    try:
        yield result
    except BaseException:
        if result["code"] == "OK":
            result["code"] = "ERROR"
        raise
    finally:
        seconds = time.perf_counter() - begun
        _REQUESTS.labels(door, result["method"], result["code"]).inc()
        _SECONDS.labels(door, result["method"]).observe(seconds)
        _DURATION.record(seconds, {"door": door, **result})
