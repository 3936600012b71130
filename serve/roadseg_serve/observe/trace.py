"""Traces: what one request does in every stage, as OpenTelemetry spans beside those of Ray Serve.

Ray Serve asks `otlp_exporter` in each of its processes, leads the context from stage to stage, and makes spans of its
own. It would decide in each process anew whether a trace is kept, and tear it. So RAY_SERVE_TRACING_SAMPLING_RATIO is
0, and whether a request is traced is decided once, by `TraceEdge`, in front of all of it.

Whereto, under which name and how many are the standard variables of OpenTelemetry: OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and so on.
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
    """Where traces begin in this process; without a tracer, none does."""

    tracer: Tracer | None = None


def otlp_exporter() -> "list[SpanProcessor]":
    """Make this process send its spans; Ray Serve calls what RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH names.

    They are sent by a thread of their own, and thrown away where nobody takes them.
    """
    # Only where traces are wanted: it brings an HTTP client and the wire's messages.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    processor = BatchSpanProcessor(OTLPSpanExporter())
    edge = TracerProvider(shutdown_on_exit=False)  # Ray's own shuts the same processor down
    edge.add_span_processor(processor)
    _Edge.tracer = edge.get_tracer(NAME)
    _put_trace_ids_into_logs()
    # Ray keeps its spans in a stack that the calls of a request share, though they end in another order than they
    # began. Some of its own spans get an attribute of another's, and some too late, with a line for each request.
    logging.getLogger("opentelemetry.sdk.trace").addFilter(_is_no_late_attribute)
    return [processor]


class TraceEdge:
    """Begin the span of a request, as a child of the client's `traceparent` where it sends one.

    Only what is sent to be worked on is traced, not pages and probes; of a WebSocket each frame, by `begin`.

    Args:
        app: Ray Serve's HTTP server; around both is `AnswerHeaders`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; puts the span into the request's `traceparent`, which is what Ray Serve and the log go by."""
        if _Edge.tracer is None or scope.get("method") != "POST":
            return await self._app(scope, receive, send)
        headers = MutableHeaders(scope=scope)
        # A path that is not ours may hold anything.
        name = "POST /upload" if scope["path"] == "/upload" else "POST"
        with _Edge.tracer.start_as_current_span(
            name,
            # Not what happens to be there: a connection may remember the request before.
            context=W3C.extract(headers, Context()),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": "POST", "roadseg.request_id": scope["state"]["request_id"]},
        ) as span:
            W3C.inject(headers)

            async def send_noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            return await self._app(scope, receive, send_noted)


def begin(name: str, attributes: Attributes) -> AbstractContextManager[Span]:
    """A span that may be the first of its trace: of work that does not come as a request of its own."""
    return (_Edge.tracer or trace.get_tracer(NAME)).start_as_current_span(name, attributes=attributes)


def part(name: str) -> AbstractContextManager[Span]:
    """The span of a part of the work on a request, where that is traced."""
    return trace.get_tracer(NAME).start_as_current_span(name)


def note(name: str, context: Context, *, started_ns: int, time_s: float, attributes: Attributes) -> None:
    """A span that is over already, of the request whose `get_current()` is given: for work on several at once.

    Args:
        name: of the span.
        context: of its parent.
        started_ns: as `time.time_ns` says.
        time_s: that it took.
        attributes: of the span.
    """
    span = trace.get_tracer(NAME).start_span(name, context, start_time=started_ns, attributes=attributes)
    span.end(started_ns + round(1e9 * time_s))


def _put_trace_ids_into_logs() -> None:
    """Let every log line of a request that is traced have its `trace_id`."""
    make_record = logging.getLogRecordFactory()

    def make_record_with_id(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        context = trace.get_current_span().get_span_context()
        if context.trace_flags.sampled:
            record.trace_id = trace.format_trace_id(context.trace_id)
        return record

    logging.setLogRecordFactory(make_record_with_id)


def _is_no_late_attribute(record: logging.LogRecord) -> bool:
    return record.msg != "Setting attribute on ended span."
