"""Requests that a real server has no time or no room for: each gets a problem, and the next one gets its mask.

A picture waits for a second one before it is predicted, so that one alone is never answered.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.sync.client import connect

from tests.server import Server, StartServer
from tests.uploads import PART, WHOLE, file_of, left_half_red
from tests.wire import wait_until

REQUEST_TIMEOUT_S = 15
GIVE_UP_S = 2
ANSWER_TIMEOUT_S = 120


@pytest.fixture(scope="module", params=["staged", "fused"])
def server(request: pytest.FixtureRequest, start_server: StartServer, red_artefact: Path) -> Iterator[Server]:
    """Behind Ray's proxy, and without it; with room for two requests, and for one that waits."""
    room = {"max_ongoing_requests": 2, "max_queued_requests": 1}
    alone = {"max_batch_size": 2, "batch_wait_timeout_s": 3600, "max_queued_requests": 1}
    backpressure = {"status_code": 429, "retry_after_s": 7}
    settings = {
        "model": str(red_artefact),
        "form": request.param,
        "gate": {"request_timeout_s": REQUEST_TIMEOUT_S},
        "backpressure_config": backpressure,
        "ingress": room,
        "predict": alone,
    }
    with start_server(settings=settings) as server:

        def keep_company() -> None:
            while "roadseg is ready at" not in server.log.read_text() and server.process.poll() is None:
                time.sleep(0.1)
                with suppress(httpx.HTTPError):
                    httpx.get(f"{server.url}/health", timeout=ANSWER_TIMEOUT_S)

        with ThreadPoolExecutor() as pool:  # the server asks for its own health, alone
            pool.submit(keep_company)
            server.wait_until_ready()
        yield server


def upload(server: Server, width: int = 64) -> httpx.Response:
    files = {"file": file_of(left_half_red((width, 64)))}
    return httpx.post(f"{server.url}/upload?format=json", files=files, timeout=ANSWER_TIMEOUT_S)


@contextmanager
def stalled_upload(server: Server) -> Iterator[None]:
    """An upload of which half has come."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=ANSWER_TIMEOUT_S) as connection:
        head = b"POST /upload HTTP/1.1\r\nHost: roadseg\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        connection.sendall(head + b"Content-Length: 5000\r\n\r\n--b\r\n" + PART + b"\r\n\r\n" + WHOLE[:50])
        yield


@contextmanager
def full(server: Server) -> Iterator[None]:
    """A server that has no room for any more, or soon will have none: two uploads stall, and one request waits."""
    is_over = threading.Event()

    def wait_in_line() -> None:
        while not is_over.is_set():
            httpx.get(f"{server.url}/v1/model", timeout=ANSWER_TIMEOUT_S)

    with stalled_upload(server), stalled_upload(server), ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_in_line)
        try:
            yield
        finally:
            is_over.set()
    waiting.result()


def test_work_that_takes_too_long_is_a_504_and_cancelled(server: Server) -> None:
    def batches(most: str) -> float:
        return server.metric("ray_roadseg_batch_size_bucket", le=most) or 0

    late = upload(server)
    if late.status_code == 200:  # it met a request for health that was given up while the server started
        late = upload(server)
    assert late.status_code == 504
    assert late.headers["content-type"] == "application/problem+json"
    assert late.json()["type"] == "urn:roadseg:request-timeout"
    all_before, single_before = batches("+Inf"), batches("1.0")
    # What was given up still counts as the companion that the next one waits for, but is not predicted.
    assert upload(server, 96).json()["width"] == 96
    wait_until(lambda: batches("+Inf") == all_before + 1)
    assert batches("1.0") == single_before + 1


def refusal_of_a_request(server: Server) -> httpx.Response:
    """Ask until one is refused; who has to wait goes away."""
    while True:
        with suppress(httpx.TimeoutException):
            answer = httpx.get(f"{server.url}/v1/model", headers={"X-Request-ID": "mine"}, timeout=GIVE_UP_S)
            if answer.status_code != 200:
                return answer


def refusal_of_a_stream(server: Server) -> Response:
    while True:
        try:
            with suppress(TimeoutError), connect(f"ws://127.0.0.1:{server.port}/stream", open_timeout=GIVE_UP_S):
                pass
        except InvalidStatus as error:
            return error.response


def test_what_ray_itself_refuses_is_a_problem_too(server: Server) -> None:
    with full(server):
        answer, handshake = refusal_of_a_request(server), refusal_of_a_stream(server)
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "7"
    assert answer.headers.get_list("x-request-id") == ["mine"]
    problem = answer.json()
    assert (problem["type"], problem["status"]) == ("urn:roadseg:overloaded", 429)
    assert (problem["request_id"], problem["title"]) == ("mine", "Too busy")
    assert handshake.status_code == 429
    assert json.loads(handshake.body or b"")["type"] == "urn:roadseg:overloaded"
    assert httpx.get(f"{server.url}/v1/model", timeout=ANSWER_TIMEOUT_S).status_code == 200
