"""Traces: they continue across borders and carry nothing that is not allowed."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import REGISTRY

from services.platform import telemetry


def test_a_trace_continues_from_a_traceparent() -> None:
    with telemetry.recorded_spans() as recorded:
        with telemetry.span("publish", kind="producer"):
            sent, trace_id = telemetry.traceparent(), telemetry.trace_id()
        with telemetry.span("handle", kind="consumer", parent=sent):
            assert telemetry.trace_id() == trace_id
            with telemetry.span("inside"):
                pass
    publish, inside, handle = recorded.get_finished_spans()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", sent)
    assert handle.parent.span_id == publish.context.span_id
    assert inside.parent.span_id == handle.context.span_id


def test_a_thing_has_one_trace_wherever_it_is_met() -> None:
    one = telemetry.traceparent_for(b"k" * 32, "1.2.840.1")
    assert one == telemetry.traceparent_for(b"k" * 32, "1.2.840.1")
    assert (
        len(
            {
                one[3:35],
                *(telemetry.traceparent_for(*o)[3:35] for o in ((b"l" * 32, "1.2.840.1"), (b"k" * 32, "1.2.840.2"))),
            }
        )
        == 3
    )
    with telemetry.recorded_spans() as recorded, telemetry.span("file", parent=one):
        assert telemetry.trace_id() == one.split("-")[1]
    assert f"{recorded.get_finished_spans()[0].parent.span_id:016x}" == one.split("-")[2]


def test_nothing_is_current_outside_a_span() -> None:
    assert telemetry.traceparent() == ""
    assert telemetry.trace_id() == ""


@pytest.mark.parametrize("malformed", ["", "garbage", "00-0-0-0", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_malformed_traceparent_begins_a_new_trace(malformed: str) -> None:
    with telemetry.recorded_spans() as recorded, telemetry.span("handle", parent=malformed):
        assert len(telemetry.trace_id()) == 32
    assert recorded.get_finished_spans()[0].parent is None


def test_only_allowed_attributes_leave() -> None:
    with telemetry.recorded_spans() as recorded:
        tracer = trace.get_tracer("a library")
        with tracer.start_as_current_span("GET", attributes={"url.full": "http://x/patients/Doe"}) as span:
            span.set_attribute("patient_name", "Doe^Jane")
            span.set_attribute("rpc.method", "GetTimeline")
            span.add_event("note", {"text": "Doe", "exception.type": "E"})
    (exported,) = recorded.get_finished_spans()
    assert dict(exported.attributes or {}) == {"rpc.method": "GetTimeline"}
    assert dict(exported.events[0].attributes or {}) == {"exception.type": "E"}
    assert "Doe" not in exported.to_json()


def test_an_exception_leaves_its_type_and_never_its_message() -> None:
    with telemetry.recorded_spans() as recorded:
        with pytest.raises(ValueError, match="Doe"), telemetry.span("read"):
            raise ValueError("cannot read Doe^Jane 12345678")
        with pytest.raises(KeyError), trace.get_tracer("a library").start_as_current_span("lib"):
            raise KeyError("Doe^Jane")
    ours, theirs = recorded.get_finished_spans()
    assert ours.attributes["error.type"] == "ValueError"
    assert ours.status.status_code is trace.StatusCode.ERROR
    assert "Doe" not in ours.to_json() + theirs.to_json()


def test_requests_are_counted_and_timed() -> None:
    def count(code: str) -> float:
        labels = {"door": "test", "method": "M", "code": code}
        return REGISTRY.get_sample_value("osler_requests_total", labels) or 0.0

    before = count("OK"), count("ERROR"), count("NOT_FOUND")
    with telemetry.measured("test", "M"):
        pass
    with telemetry.measured("test", "?") as result:
        result |= {"code": "NOT_FOUND", "method": "M"}
    with pytest.raises(RuntimeError), telemetry.measured("test", "M"):
        raise RuntimeError
    assert (count("OK"), count("ERROR"), count("NOT_FOUND")) == tuple(value + 1 for value in before)
    assert (REGISTRY.get_sample_value("osler_request_seconds_count", {"door": "test", "method": "M"}) or 0) >= 3


EXPORT = """
import sys
from pathlib import Path
from services.platform import telemetry
from services.platform.config import Settings

telemetry.setup("osler-twin", Settings(home=Path("/nowhere"), telemetry={"otlp_endpoint": sys.argv[1]}))
telemetry.setup("another", Settings(home=Path("/nowhere")))
with telemetry.measured("grpc", "M"), telemetry.span("predict", attributes={"osler.room": "twin"}) as span:
    span.set_attribute("patient_name", "Doe^Jane")
telemetry.shutdown()
"""


def test_spans_and_metrics_reach_a_collector_clean() -> None:
    received: dict[str, bytes] = {}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received[self.path] = gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}/"
        subprocess.run([sys.executable, "-c", EXPORT, endpoint], check=True, timeout=60)
        server.shutdown()
        thread.join()
    (resource,) = ExportTraceServiceRequest.FromString(received["/v1/traces"]).resource_spans
    names = {item.key: item.value.string_value for item in resource.resource.attributes}
    (span,) = resource.scope_spans[0].spans
    assert names["service.name"] == "osler-twin"
    assert (span.name, [item.key for item in span.attributes]) == ("predict", ["osler.room"])
    (measures,) = ExportMetricsServiceRequest.FromString(received["/v1/metrics"]).resource_metrics
    assert measures.scope_metrics[0].metrics[0].name == "osler.request.duration"
    assert b"Doe" not in b"".join(received.values())
