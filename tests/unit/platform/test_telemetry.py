"""Traces: they continue across borders and carry nothing that is not allowed."""

from __future__ import annotations

import re

import pytest
from opentelemetry import trace
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
