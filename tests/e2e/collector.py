"""An OpenTelemetry collector on loopback that keeps what it is sent (OTLP over HTTP, protobuf)."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One span as it left its process."""

    service: str
    trace_id: str
    name: str


@dataclass
class Collector:
    """`endpoint`: for OSLER_TELEMETRY__OTLP_ENDPOINT."""

    endpoint: str = ""
    _bodies: list[tuple[str, bytes]] = field(default_factory=list)

    def spans(self) -> list[Span]:
        found = []
        for path, body in list(self._bodies):
            if path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    (service,) = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
                    told = [span for scope in resource.scope_spans for span in scope.spans]
                    found += [Span(service, span.trace_id.hex(), span.name) for span in told]
        return found

    def everything(self) -> bytes:
        """All that was sent, traces and metrics, as it came."""
        return b"".join(body for _, body in list(self._bodies))

    def add(self, path: str, body: bytes) -> None:
        self._bodies.append((path, body))


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens while the block runs."""
    collector = Collector()

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.add(self.path, gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        collector.endpoint = f"http://127.0.0.1:{server.server_port}"
        yield collector
        server.shutdown()
        thread.join()
