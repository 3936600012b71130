"""The gate of a real server: keys that are changed while it serves, a slow client, and one request id everywhere."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.server import Server, StartServer
from tests.uploads import WHOLE

FIRST, SECOND = {"Authorization": "Bearer of-june"}, {"X-API-Key": "of-july"}
FILES = {"file": ("road.png", WHOLE)}
ANSWER_TIMEOUT_S = 120


@pytest.fixture(scope="module", params=["staged", "fused"])
def form(request: pytest.FixtureRequest) -> str:
    """Behind Ray's proxy, and without it."""
    return str(request.param)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys"


@pytest.fixture(scope="module")
def guarded(start_server: StartServer, red_artefact: Path, keys: Path, form: str) -> Iterator[Server]:
    keys.write_text("# one a month\nof-june\n")
    gate = {"api_keys_file": str(keys), "receive_timeout_s": 10, "rate_limit": "60/minute"}
    settings = {"model": str(red_artefact), "form": form, "gate": gate}
    with start_server("--log-format", "json", settings=settings) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="module")
def client(guarded: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=ANSWER_TIMEOUT_S) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def stalled(guarded: Server) -> Iterator[socket.socket]:
    """An upload that stops in the middle, while the other tests go on."""
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=ANSWER_TIMEOUT_S) as connection:
        connection.sendall(
            b"POST /upload HTTP/1.1\r\nHost: roadseg\r\nAuthorization: Bearer of-june\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5000\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        )
        yield connection


def lines_of(server: Server) -> list[dict[str, Any]]:
    """All that Ray Serve has logged for this server."""
    texts = [file.read_text() for file in (server.session() / "logs" / "serve").glob("*.log")]
    return [json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{")]


def test_the_key_of_the_file_is_asked_for(client: httpx.Client) -> None:
    assert client.post("/upload", files=FILES, headers=FIRST).status_code == 200
    assert client.post("/upload", files=FILES).status_code == 401
    assert client.post("/upload", files=FILES, headers=SECOND).status_code == 401
    assert client.get("/v1/model").status_code == 401
    assert client.get("/health").status_code == client.get("/").status_code == client.get("/docs").status_code == 200


def test_a_websocket_without_a_key_is_refused(guarded: Server) -> None:
    with pytest.raises(InvalidStatus) as caught, connect(f"ws://127.0.0.1:{guarded.port}/stream"):
        pass
    assert caught.value.response.status_code == 401


def test_a_websocket_with_a_key_as_a_browser_sends_it(guarded: Server) -> None:
    address = f"ws://127.0.0.1:{guarded.port}/stream"
    with connect(address, subprotocols=[Subprotocol("roadseg"), Subprotocol("key.of-june")]) as stream:
        assert stream.subprotocol == "roadseg"
        stream.send(WHOLE)
        assert json.loads(stream.recv(ANSWER_TIMEOUT_S))["road_share"] == 0.5
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(address, subprotocols=[Subprotocol("roadseg"), Subprotocol("key.of-july")]),
    ):
        pass
    assert caught.value.response.status_code == 401
    assert b"of-july" not in (caught.value.response.body or b"")


def test_keys_are_changed_while_it_serves(client: httpx.Client, keys: Path) -> None:
    for text, first, second in (("of-june\nof-july", 200, 200), ("of-july", 401, 200), ("of-june", 200, 401)):
        keys.write_text(text)
        assert client.get("/v1/model", headers=FIRST).status_code == first
        assert client.get("/v1/model", headers=SECOND).status_code == second


def test_one_id_goes_through_all_of_ray(client: httpx.Client, guarded: Server, form: str) -> None:
    refused = {"file": ("road.png", b"no picture")}
    answer = client.post("/upload", files=refused, headers=FIRST | {"X-Request-ID": "trace-me"})
    assert answer.headers.get_list("x-request-id") == ["trace-me"]
    assert answer.json()["request_id"] == "trace-me"
    lines = [line for line in lines_of(guarded) if line.get("request_id") == "trace-me"]
    through = {"roadseg_Ingress", "roadseg_Preprocess"} if form == "staged" else {"roadseg_Fused"}
    assert through <= {line.get("deployment") for line in lines}
    (ours,) = [line for line in lines if "route_template" in line]
    assert (ours["status"], ours["error"], ours["client"]) == (415, "NotAnImageError", "127.0.0.1")


def test_an_id_that_is_none_and_an_address_that_is_forged_are_not_taken(client: httpx.Client, guarded: Server) -> None:
    forged = FIRST | {"X-Request-ID": "not an id", "X-Forwarded-For": "203.0.113.9"}
    answer = client.post("/upload", files=FILES, headers=forged)
    (request_id,) = answer.headers.get_list("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    lines = lines_of(guarded)
    (ours,) = [line for line in lines if line.get("request_id") == request_id and "route_template" in line]
    assert (ours["status"], ours["client"], ours["model"]) == (200, "127.0.0.1", "red/1")
    assert {"decode", "encode"} <= set(ours["times_ms"])
    assert "not an id" not in json.dumps(lines)


def test_a_path_that_ray_answers_itself_has_an_id(client: httpx.Client) -> None:
    assert client.get("/-/healthz", headers={"X-Request-ID": "mine"}).headers.get_list("x-request-id") == ["mine"]


def test_no_key_is_in_the_logs(guarded: Server) -> None:
    text = json.dumps(lines_of(guarded)) + guarded.log.read_text()
    assert "route_template" in text
    assert "of-june" not in text
    assert "of-july" not in text


def test_a_client_that_stalls_is_sent_away(stalled: socket.socket) -> None:
    answer = b""
    while part := stalled.recv(4096):  # to the end: the server closes the connection
        answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:roadseg:receive-timeout" in answer


def test_a_client_that_asks_too_often_has_to_wait(client: httpx.Client) -> None:
    # Whatever address it claims to have.
    answers = [client.get("/v1/model", headers=FIRST | {"X-Forwarded-For": f"203.0.113.{n}"}) for n in range(70)]
    assert {answer.status_code for answer in answers} == {200, 429}
    refusal = next(answer for answer in answers if answer.status_code == 429)
    assert 0 < int(refusal.headers["retry-after"]) <= 60
    assert client.get("/health").status_code == 200


def test_a_file_without_keys_is_one_clear_line(start_server: StartServer, red_artefact: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    settings = {"model": str(red_artefact), "gate": {"api_keys_file": str(tmp_path / "keys")}}
    with start_server(settings=settings) as server:
        assert server.wait_until_stopped() == 1
        lines = [line for line in server.log.read_text().splitlines() if "installing" not in line]
        assert len(lines) == 1
        assert "holds no API key" in lines[0]
