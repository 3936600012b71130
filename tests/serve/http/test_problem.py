"""Answers to errors, and reports of them."""

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from roadseg_serve.errors import BadKeyError, NotAnImageError, OverloadedError, RequestError
from roadseg_serve.http.problem import Problems, problem_body
from roadseg_serve.messages import Answer, AnswerOptions
from roadseg_serve.settings import BackpressureConfig, GateArgs
from tests.serve.gated import UPLOAD, api_of, ask


async def overloaded(_data: bytes, _options: AnswerOptions) -> Answer:
    raise OverloadedError("Too many are waiting.")


@pytest.mark.parametrize("settings", [{}, {"status_code": 429, "retry_after_s": 7}])
def test_an_overload_is_answered_as_configured(settings: dict[str, Any]) -> None:
    response = ask(api_of(segment=overloaded, backpressure=BackpressureConfig(**settings)), "POST", "/upload", **UPLOAD)
    assert response.json()["type"] == "urn:roadseg:overloaded"
    assert response.status_code == response.json()["status"] == settings.get("status_code", 503)
    assert response.headers["retry-after"] == str(settings.get("retry_after_s", 1))


def test_every_refusal_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROADSEG_KEYS", "sesame")
    heard: list[RequestError] = []
    api = api_of(GateArgs(api_keys_env="ROADSEG_KEYS"), overloaded, note_refusal=heard.append)
    ask(api, "POST", "/upload", **UPLOAD)
    ask(api, "POST", "/upload", headers={"X-API-Key": "sesame"}, **UPLOAD)
    assert [type(error) for error in heard] == [BadKeyError, OverloadedError]


def test_an_error_after_the_start_of_an_answer_is_raised() -> None:
    async def begin_and_fail(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OverloadedError("Too late.")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        raise AssertionError

    problems = Problems(begin_and_fail, BackpressureConfig(), lambda _error: None)
    with pytest.raises(OverloadedError):
        asyncio.run(problems({"type": "http", "state": {}}, receive, send))
    assert sent == ["http.response.start"]


def test_problem_body_is_rfc_9457() -> None:
    assert problem_body(NotAnImageError.problem, "Send a PNG.", "7") == {
        "type": "urn:roadseg:not-an-image",
        "title": "Not a picture",
        "status": 415,
        "detail": "Send a PNG.",
        "request_id": "7",
    }
