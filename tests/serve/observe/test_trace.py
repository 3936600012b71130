"""Where traces start, which are kept, and their ids in the log; the spans go to a real receiver."""

import logging
from collections.abc import Iterator

import httpx
import pytest
from opentelemetry import trace as otel
from starlette.types import ASGIApp, Receive, Scope, Send

from roadseg_serve.graph import ray_proxy
from roadseg_serve.observe import trace
from tests.otlp import Collector, collect
from tests.serve.gated import ask

CLIENT = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    make_record = logging.getLogRecordFactory()
    with collect() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "road")
        yield collector
    trace._Edge.tracer = None
    logging.setLogRecordFactory(make_record)


def ray_that_answers(status: int, heard: list[Scope]) -> ASGIApp:
    async def answer(scope: Scope, _receive: Receive, send: Send) -> None:
        heard.append(scope)
        logging.getLogger("ray.serve.test").info("asked")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app: ASGIApp = answer
    for middleware in ray_proxy.middleware():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


def ask_once(method: str, path: str, headers: dict[str, str], status: int = 200) -> tuple[str, httpx.Response]:
    """The `traceparent` that Ray hears, and the answer."""
    (processor,) = trace.otlp_exporter()
    heard: list[Scope] = []
    response = ask(ray_that_answers(status, heard), method, path, headers=headers | {"X-Request-ID": "seven"})
    processor.shutdown()
    return dict(heard[0]["headers"]).get(b"traceparent", b"").decode(), response


def test_a_request_is_a_child_of_the_clients_span(collector: Collector) -> None:
    heard, _ = ask_once("POST", "/upload", CLIENT)
    (span,) = collector.spans
    assert (span.name, span.trace_id, span.parent_id, span.service) == ("POST /upload", "ab" * 16, "cd" * 8, "road")
    assert span.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "roadseg.request_id": "seven",
    }
    assert heard == f"00-{'ab' * 16}-{span.span_id}-01"


def is_sampled(traceparent: str) -> bool:
    return bool(int(traceparent.rpartition("-")[2], 16) & 1)


@pytest.mark.parametrize("headers", [{}, {"traceparent": "00-zz-01"}])
def test_a_request_without_a_parent_starts_a_trace(collector: Collector, headers: dict[str, str]) -> None:
    heard, _ = ask_once("POST", "/secret/path", headers, status=503)
    (span,) = collector.spans
    assert (span.name, span.parent_id, span.attributes["http.response.status_code"]) == ("POST", "", 503)
    assert (heard.rpartition("-")[0], is_sampled(heard)) == (f"00-{span.trace_id}-{span.span_id}", True)


@pytest.mark.parametrize(
    ("ratio", "headers", "is_kept"),
    [
        ("0", {}, False),
        ("1", {}, True),
        ("0", CLIENT, True),
        ("1", {"traceparent": CLIENT["traceparent"][:-1] + "0"}, False),
    ],
)
def test_sampling_is_decided_once(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, ratio: str, headers: dict[str, str], is_kept: bool
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    heard, _ = ask_once("POST", "/upload", headers)
    assert bool(collector.spans) == is_kept
    assert is_sampled(heard) == is_kept  # all of Ray's processes follow this


def test_pages_and_probes_are_not_traced(collector: Collector) -> None:
    assert ask_once("GET", "/health", {})[0] == ""
    assert collector.spans == []


def test_without_an_exporter_nothing_is_touched() -> None:
    heard: list[Scope] = []
    ask(ray_that_answers(200, heard), "POST", "/upload", headers={"X-Request-ID": "seven"})
    assert b"traceparent" not in dict(heard[0]["headers"])


def test_log_records_of_a_traced_request_have_its_id(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ray.serve.test"):
        ask_once("POST", "/upload", CLIENT)
        ask_once("GET", "/health", {})
    assert [getattr(record, "trace_id", None) for record in caplog.records] == ["ab" * 16, None]
    assert collector.spans


def test_only_start_trace_starts_a_trace(collector: Collector) -> None:
    (processor,) = trace.otlp_exporter()
    with trace.span("decode"):
        pass
    with trace.start_trace("frame", {"number": 7}) as frame:
        trace_id = otel.format_trace_id(frame.get_span_context().trace_id)
    processor.shutdown()
    assert [(span.name, span.trace_id, span.attributes) for span in collector.spans] == [
        ("frame", trace_id, {"number": 7})
    ]
