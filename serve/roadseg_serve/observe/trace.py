"""Traces: OpenTelemetry spans of each stage of a request, beside the spans of Ray Serve.

Ray Serve calls `otlp_exporter` in each of its processes and passes the context on from stage to stage. Its own sampling
would decide in each process anew whether to keep a trace, and tear traces apart. So RAY_SERVE_TRACING_SAMPLING_RATIO
is 0, and `TraceEdge` decides once, before Ray Serve sees the request.

The standard OpenTelemetry variables set the destination, the service name and the sampling rate:
OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and so on.
"""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

NAME = "roadseg"
Attributes = Mapping[str, str | int]
W3C = TraceContextTextMapPropagator()


class _Edge:
    """Holds the tracer that starts traces in this process; without one, there are none."""

    tracer: Tracer | None = None


def otlp_exporter() -> "list[SpanProcessor]":
    """Make this process export its spans; RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH names this function.

    A background thread sends the spans, and drops them if no collector answers.
    """
    # Imported only if traces are on: they bring an HTTP client and protocol buffers.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    processor = BatchSpanProcessor(OTLPSpanExporter())
    edge = TracerProvider(shutdown_on_exit=False)  # Ray's own provider shuts the same processor down
    edge.add_span_processor(processor)
    _Edge.tracer = edge.get_tracer(NAME)
    _add_trace_ids_to_logs()
    # Ray keeps the spans of a request in one stack, though its calls do not end in reverse order. So Ray sometimes sets
    # attributes on a span that has ended, which would log a warning for each request.
    logging.getLogger("opentelemetry.sdk.trace").addFilter(
        lambda record: record.msg != "Setting attribute on ended span."
    )
    return [processor]


class TraceEdge:
    """Middleware that starts the span of a request, as a child of the client's `traceparent` if there is one.

    Only POST requests are traced, not pages and probes; frames of a WebSocket get theirs from `start_trace`.
    `AnswerHeaders` must run before it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; writes the span to the request's `traceparent` header, from which Ray Serve and the log continue."""
        if _Edge.tracer is None or scope.get("method") != "POST":
            return await self._app(scope, receive, send)
        headers = MutableHeaders(scope=scope)
        # Not the path itself: clients can put anything there.
        name = "POST /upload" if scope["path"] == "/upload" else "POST"
        with _Edge.tracer.start_as_current_span(
            name,
            # A new context: the connection may still hold that of an earlier request.
            context=W3C.extract(headers, Context()),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": "POST", "roadseg.request_id": scope["state"]["request_id"]},
        ) as span:
            W3C.inject(headers)

            async def send_and_record(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            return await self._app(scope, receive, send_and_record)


def start_trace(name: str, attributes: Attributes) -> AbstractContextManager[Span]:
    """A span for work that does not come as a request of its own; it starts a trace if there is none."""
    return (_Edge.tracer or trace.get_tracer(NAME)).start_as_current_span(name, attributes=attributes)


def span(name: str) -> AbstractContextManager[Span]:
    """A span within the current trace, if there is one."""
    return trace.get_tracer(NAME).start_as_current_span(name)


def record_span(name: str, parent: Context, *, started_ns: int, time_s: float, attributes: Attributes) -> None:
    """Add a finished span to another request's trace, for work on several requests at once.

    `parent` is the `get_current()` of that request, `started_ns` comes from `time.time_ns()`.
    """
    finished = trace.get_tracer(NAME).start_span(name, parent, start_time=started_ns, attributes=attributes)
    finished.end(started_ns + round(1e9 * time_s))


def _add_trace_ids_to_logs() -> None:
    """Give every log record of a traced request its `trace_id`."""
    make_record = logging.getLogRecordFactory()

    def make_record_with_id(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        context = trace.get_current_span().get_span_context()
        if context.trace_flags.sampled:
            record.trace_id = trace.format_trace_id(context.trace_id)
        return record

    logging.setLogRecordFactory(make_record_with_id)
