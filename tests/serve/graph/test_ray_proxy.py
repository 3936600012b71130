"""Ray Serve's own refusals, made by its own code, become problems."""

import asyncio
from typing import Any

import httpx
import pytest
from ray.serve._private.http_util import convert_object_to_asgi_messages, retry_after_headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadseg_serve.graph import ray_proxy
from tests.serve.gated import ask


def ray_that_answers(status: int, retry_after_s: float | None = None) -> ASGIApp:
    """Ray's HTTP server where it does not ask the routes, within what it runs around itself."""

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = retry_after_headers(retry_after_s)
        for message in convert_object_to_asgi_messages("no room", status_code=status, extra_headers=headers):
            await send(message)

    return around(answer)


def around(app: ASGIApp) -> ASGIApp:
    for middleware in ray_proxy.middleware():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


@pytest.mark.parametrize(
    ("ray", "answered"),
    [
        ((503, 7), (503, "urn:roadseg:overloaded", "7")),
        ((429, 7), (429, "urn:roadseg:overloaded", "7")),
        ((503, None), (503, "urn:roadseg:model-unavailable", "1")),
        ((408, None), (504, "urn:roadseg:request-timeout", None)),
        ((404, None), (404, "about:blank", None)),
    ],
)
def test_a_refusal_becomes_a_problem(ray: tuple[int, float | None], answered: tuple[int, str, str | None]) -> None:
    response = ask(ray_that_answers(*ray), "POST", "/upload", headers={"X-Request-ID": "mine"})
    problem = response.json()
    assert (response.status_code, problem["type"], response.headers.get("retry-after")) == answered
    assert response.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["request_id"]) == (answered[0], "mine")
    assert len(problem["detail"]) > 5
    assert "no room" not in response.text


@pytest.mark.parametrize(
    "response",
    [
        PlainTextResponse("success"),
        PlainTextResponse("the client has gone", 499),
        JSONResponse({"type": "urn:roadseg:overloaded"}, 503, media_type="application/problem+json"),
    ],
)
def test_other_answers_pass_unchanged(response: Response) -> None:
    answer = ask(around(response), "GET", "/-/healthz")
    assert (answer.status_code, answer.content) == (response.status_code, response.body)
    assert answer.headers["content-type"] == response.headers["content-type"]


def test_a_refused_websocket_gets_a_problem_too() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "websocket", "path": "/stream", "headers": []}

    async def once() -> None:
        await ray_that_answers(503, 7)(scope, receive, send)

    asyncio.run(once())
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"7") in sent[0]["headers"]
    assert httpx.Response(503, content=sent[1]["body"]).json()["type"] == "urn:roadseg:overloaded"
