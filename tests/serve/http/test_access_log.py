"""The access log: what a line contains, and what it never contains."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._common.formatters import JSONFormatter
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocket

from roadseg_serve.errors import ImageTooLargeError, OverloadedError
from roadseg_serve.messages import Answer, AnswerOptions
from roadseg_serve.settings import GateArgs
from tests.serve.gated import UPLOAD, api_of, ask, open_socket


class Lines(logging.Handler):
    """The log as Ray Serve writes it with the encoding JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"

    def only(self) -> dict[str, Any]:
        (line,) = self.text.splitlines()
        fields: dict[str, Any] = json.loads(line)
        return fields


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger("ray.serve")
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(level)


async def fail(_data: bytes, _options: AnswerOptions) -> Answer:
    raise RuntimeError("inside")


def test_an_upload_is_one_line_with_everything(lines: Lines) -> None:
    response = ask(api_of(), "POST", "/upload?secret=sesame", headers={"X-Request-ID": "seven"}, **UPLOAD)
    fields = lines.only()
    assert {name: fields[name] for name in ("method", "route_template", "status", "client", "request_id", "model")} == {
        "method": "POST",
        "route_template": "/upload",
        "status": 200,
        "client": "192.0.2.1",
        "request_id": "seven",
        "model": "red/1",
    }
    assert fields["times_ms"] == {"decode": 2.1, "infer": 30.4}
    assert fields["bytes_in"] == int(response.request.headers["content-length"])
    assert fields["bytes_out"] == len(b"mask of picture")
    assert fields["duration_ms"] > 0
    assert fields["levelname"] == "INFO"
    assert fields["message"].startswith("POST /upload 200 ")
    assert "error" not in fields


def test_no_payload_no_key_and_no_query(lines: Lines, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("sesame")
    api = api_of(GateArgs(api_keys_file=tmp_path / "keys"))
    for key in ("sesame", "wrong-key"):
        for method, path in (("POST", "/upload?word=magic"), ("GET", "/magic/word"), ("GET", "/v1/model")):
            ask(
                api,
                method,
                path,
                headers={"Authorization": f"Bearer {key}"},
                files={"file": ("magic.png", b"abracadabra")},
            )
    assert len(lines.text.splitlines()) == 6
    for secret in ("sesame", "wrong-key", "magic", "abracadabra"):
        assert secret not in lines.text
    # Which key it was can be told by who has it: printf %s sesame | sha256sum
    key_ids = [json.loads(line).get("key_id") for line in lines.text.splitlines()]
    assert key_ids == ["d0c04f4b"] * 3 + [None] * 3


def test_a_refusal_logs_its_reason(lines: Lines) -> None:
    async def refuse(_data: bytes, _options: AnswerOptions) -> Answer:
        raise ImageTooLargeError("Send a smaller one.")

    ask(api_of(segment=refuse), "POST", "/upload", **UPLOAD)
    fields = lines.only()
    assert (fields["status"], fields["error"], fields["levelname"]) == (413, "ImageTooLargeError", "INFO")
    assert "exc_text" not in fields


def test_an_overload_is_a_warning(lines: Lines) -> None:
    async def refuse(_data: bytes, _options: AnswerOptions) -> Answer:
        raise OverloadedError("Try again.")

    ask(api_of(segment=refuse), "POST", "/upload", **UPLOAD)
    fields = lines.only()
    assert (fields["status"], fields["error"], fields["levelname"]) == (503, "OverloadedError", "WARNING")


def test_a_bug_is_logged_with_its_traceback(lines: Lines) -> None:
    response = ask(api_of(segment=fail), "POST", "/upload", headers={"X-Request-ID": "seven"}, **UPLOAD)
    fields = lines.only()
    assert (fields["status"], fields["error"], fields["levelname"]) == (500, "RuntimeError", "ERROR")
    assert fields["request_id"] == response.json()["request_id"] == "seven"
    assert "in fail" in fields["exc_text"]
    assert "inside" in fields["exc_text"]
    assert "inside" not in response.text


def test_an_unknown_route_has_no_template(lines: Lines) -> None:
    ask(api_of(), "GET", "/nowhere")
    fields = lines.only()
    assert (fields["status"], fields["route_template"]) == (404, None)


def test_health_is_logged_at_level_debug(lines: Lines) -> None:
    ask(api_of(), "GET", "/health")
    assert lines.only()["levelname"] == "DEBUG"


def test_a_client_that_disconnects_is_not_an_error(lines: Lines) -> None:
    async def go_away(_data: bytes, _options: AnswerOptions) -> Answer:
        raise ClientDisconnect

    with pytest.raises(AssertionError):  # the test's client waits for an answer
        ask(api_of(segment=go_away), "POST", "/upload", **UPLOAD)
    fields = lines.only()
    assert (fields["status"], fields["levelname"], "error" in fields) == (499, "INFO", False)


def test_a_websocket_has_a_line_too(lines: Lines, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("sesame")
    open_socket(api_of(GateArgs(api_keys_file=tmp_path / "keys")), "/stream", {"websocket.http.response": {}})
    fields = lines.only()
    assert (fields["method"], fields["status"], fields["error"]) == ("WS", 401, "BadKeyError")


def test_a_websocket_that_disconnects_is_not_an_error(lines: Lines) -> None:
    api = api_of()

    @api.websocket("/echo")
    async def echo_one(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_bytes(await socket.receive_bytes())
        await socket.receive_bytes()

    assert open_socket(api, "/echo", {}, b"frame")[1] == {"type": "websocket.send", "bytes": b"frame"}
    fields = lines.only()
    assert (fields["method"], fields["route_template"], fields["status"]) == ("WS", "/echo", 101)
    assert (fields["bytes_in"], fields["bytes_out"], fields["levelname"]) == (5, 5, "INFO")
    assert "error" not in fields
