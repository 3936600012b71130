"""One request is followed through all stages of a real server: by its spans at a real receiver, and by the log."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from websockets.sync.client import connect

from tests.e2e.conftest import SENT_AFTER_S
from tests.otlp import Collector, Span
from tests.server import Server
from tests.uploads import WHOLE
from tests.wire import wait_until

FILES = {"file": ("road.png", WHOLE)}
CLIENT_SPAN = "cd" * 8
ANSWER_TIMEOUT_S = 120
NUM_AT_ONCE, FIRST_AT_ONCE = 8, 1000
FAR_MORE_THAN_ONE_READ = 3_000_000  # bytes: the server stops reading in between, and goes on

# Name of each span in a trace, and that of its parent.
STAGES = {
    "staged": {
        "proxy_http_request Ingress POST /upload": "POST /upload",
        "route_to_replica Ingress __call__": "proxy_http_request Ingress POST /upload",
        "replica_handle_request Ingress __call__": "route_to_replica Ingress __call__",
        "route_to_replica Preprocess __call__": "replica_handle_request Ingress __call__",
        "route_to_replica Model __call__": "replica_handle_request Ingress __call__",
        "route_to_replica Postprocess __call__": "replica_handle_request Ingress __call__",
        "replica_handle_request Preprocess __call__": "route_to_replica Preprocess __call__",
        "replica_handle_request Model __call__": "route_to_replica Model __call__",
        "replica_handle_request Postprocess __call__": "route_to_replica Postprocess __call__",
        "preprocess": "replica_handle_request Preprocess __call__",
        "predict": "replica_handle_request Model __call__",
        "infer": "predict",
        "postprocess": "replica_handle_request Postprocess __call__",
    },
    "fused": {
        "replica_handle_request Fused __call__": "POST /upload",
        "preprocess": "replica_handle_request Fused __call__",
        "predict": "replica_handle_request Fused __call__",
        "infer": "predict",
        "postprocess": "replica_handle_request Fused __call__",
    },
}


def traced(number: int, *, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{number:032x}-{CLIENT_SPAN}-{flags}", "X-Request-ID": f"request-{number}"}


def wait_until_quiet(collector: Collector) -> None:
    """Wait until all spans must have come."""
    num_spans = -1
    while num_spans != len(collector.spans):
        num_spans = len(collector.spans)
        time.sleep(2 * SENT_AFTER_S)


def trace_of(collector: Collector, number: int, last: str) -> list[Span]:
    """All spans of a trace, once those named `last` and the first one are there, which end after all others."""

    def names() -> set[str]:
        return {span.name for span in collector.of_trace(f"{number:032x}").values()}

    wait_until(lambda: {last, "POST /upload"} <= names())
    wait_until_quiet(collector)  # the other processes send theirs in their own time
    return list(collector.of_trace(f"{number:032x}").values())


def lines_of(server: Server, request_id: str) -> list[dict[str, Any]]:
    texts = [file.read_text() for file in (server.session() / "logs" / "serve").glob("*.log")]
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("request_id") == request_id]


def test_every_stage_is_in_the_trace_of_the_client(
    client: httpx.Client, collector: Collector, server: Server, form: str
) -> None:
    assert client.post("/upload", files=FILES, headers=traced(1)).status_code == 200
    spans = trace_of(
        collector, 1, "replica_handle_request " + ("Ingress" if form == "staged" else "Fused") + " __call__"
    )
    by_name = {span.name: span for span in spans}
    assert len(by_name) == len(spans)  # none is there twice
    parents = {
        span.name: next((p.name for p in spans if p.span_id == span.parent_id), span.parent_id) for span in spans
    }
    assert parents == STAGES[form] | {"POST /upload": CLIENT_SPAN}
    assert {span.service for span in spans} == {"roadseg"}
    assert by_name["POST /upload"].attributes["roadseg.request_id"] == "request-1"
    assert by_name["infer"].attributes == {"roadseg.batch_size": 1}
    # One after another, and within the request. The clock of one machine is one clock.
    steps = [by_name[name] for name in ("preprocess", "predict", "postprocess")]
    times_ns = [time_ns for step in steps for time_ns in (step.started_ns, step.ended_ns)]
    assert [by_name["POST /upload"].started_ns, *times_ns, by_name["POST /upload"].ended_ns] == sorted(
        [by_name["POST /upload"].started_ns, *times_ns, by_name["POST /upload"].ended_ns]
    )
    (line,) = [line for line in lines_of(server, "request-1") if "route_template" in line]
    assert (line["trace_id"], line["status"]) == (f"{1:032x}", 200)


def test_lines_of_every_stage_have_both_ids(client: httpx.Client, server: Server, form: str) -> None:
    assert client.post("/upload", files={"file": b"no picture"}, headers=traced(2)).status_code == 415
    through = {"roadseg_Ingress", "roadseg_Preprocess"} if form == "staged" else {"roadseg_Fused"}

    def told() -> set[str]:
        lines = lines_of(server, "request-2")
        return {line["deployment"] for line in lines if line.get("trace_id") == f"{2:032x}"}

    wait_until(lambda: told() >= through)  # the access line is written when the answer is out
    assert told() == through


def test_requests_of_one_connection_are_traces_of_their_own(client: httpx.Client, collector: Collector) -> None:
    wait_until_quiet(collector)
    num_before = len(collector.spans)
    for _ in range(3):
        assert client.post("/upload", files={"file": bytes(FAR_MORE_THAN_ONE_READ)}).status_code == 415
    wait_until(lambda: len({span.trace_id for span in collector.spans[num_before:]}) >= 3)
    wait_until_quiet(collector)
    new = collector.spans[num_before:]
    assert len({span.trace_id for span in new}) == 3
    assert [span.name for span in new if not span.parent_id] == ["POST /upload"] * 3


def test_a_request_that_its_client_does_not_trace_is_not_traced(
    client: httpx.Client, collector: Collector, server: Server
) -> None:
    wait_until_quiet(collector)
    seen = {span.trace_id for span in collector.spans}
    assert client.post("/upload", files=FILES, headers=traced(3, flags="00")).status_code == 200
    assert client.get("/health").status_code == 200
    wait_until_quiet(collector)
    assert {span.trace_id for span in collector.spans} == seen
    (line,) = [line for line in lines_of(server, "request-3") if "route_template" in line]
    assert "trace_id" not in line


def test_a_batch_is_in_the_trace_of_each_of_its_requests(client: httpx.Client, collector: Collector) -> None:
    """Frames that come at once are predicted together: several clients upload until that has happened."""
    num_sent = 0

    def upload(number: int) -> int:
        return client.post("/upload", files=FILES, headers=traced(number)).status_code

    def predictions() -> list[Span]:
        ours = range(FIRST_AT_ONCE, FIRST_AT_ONCE + num_sent)
        return [span for span in list(collector.spans) if span.name == "infer" and int(span.trace_id, 16) in ours]

    def together() -> list[Span]:
        return [span for span in predictions() if span.attributes["roadseg.batch_size"] > 1]

    def upload_at_once() -> bool:
        nonlocal num_sent
        numbers = [FIRST_AT_ONCE + num_sent + n for n in range(NUM_AT_ONCE)]
        with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
            assert list(pool.map(upload, numbers)) == [200] * NUM_AT_ONCE
        num_sent += NUM_AT_ONCE
        wait_until(lambda: len(predictions()) == num_sent)  # one in the trace of each request
        return bool(together())

    wait_until(upload_at_once)
    for span in together():
        batch = [other for other in together() if other.started_ns == span.started_ns]
        assert len({other.trace_id for other in batch}) == len(batch) == span.attributes["roadseg.batch_size"]


def test_each_frame_of_a_stream_is_a_trace(server: Server, collector: Collector) -> None:
    def frames() -> list[Span]:
        ours = [span for span in collector.spans if span.attributes.get("roadseg.request_id") == "stream"]
        return [span for span in ours if span.name == "WS /stream frame"]

    with connect(f"ws://127.0.0.1:{server.port}/stream", additional_headers={"X-Request-ID": "stream"}) as stream:
        for _ in range(2):
            stream.send(WHOLE)
            assert json.loads(stream.recv(ANSWER_TIMEOUT_S))["road_share"] == 0.5
            stream.recv(ANSWER_TIMEOUT_S)
            stream.send("next")
    wait_until(lambda: len(frames()) == 2)
    wait_until_quiet(collector)
    assert {span.parent_id for span in frames()} == {""}
    assert len({span.trace_id for span in frames()}) == 2
    for frame in frames():
        names = [span.name for span in collector.of_trace(frame.trace_id).values()]
        assert {"preprocess", "predict", "infer", "postprocess"} <= set(names)
        assert names.count("infer") == 1
