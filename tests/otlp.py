"""A collector: an HTTP server that takes spans as OTLP over HTTP puts them on the wire."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    """One span as it came.

    Attributes:
        trace_id: hexadecimal, as in `traceparent`.
        span_id: hexadecimal.
        parent_id: hexadecimal; empty where it is the first of its trace.
        service: that it is of.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    service: str


class Collector(ThreadingHTTPServer):
    """Keeps all spans that it is sent.

    Attributes:
        url: for OTEL_EXPORTER_OTLP_ENDPOINT.
        spans: that have come so far.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.spans: list[Span] = []

    def of_trace(self, trace_id: str) -> dict[str, Span]:
        """The spans of one trace, by their ids."""
        return {span.span_id: span for span in list(self.spans) if span.trace_id == trace_id}

    def end(self) -> None:
        """Stop listening; connections are refused from then on."""
        self.shutdown()
        self.server_close()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            of_resource = {pair.key: _value(pair.value) for pair in resource.resource.attributes}
            self.spans += [
                Span(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    started_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    attributes={pair.key: _value(pair.value) for pair in span.attributes},
                    service=of_resource["service.name"],
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        assert self.headers["Content-Type"] == "application/x-protobuf"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.take(ExportTraceServiceRequest.FromString(body))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def collect(port: int = 0) -> Iterator[Collector]:
    """A collector on loopback, as long as the block lasts or until it is ended; port 0 is any free one."""
    with Collector(port) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.end()
            thread.join()


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
