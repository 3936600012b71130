"""Whatever goes wrong becomes an answer: problem+json for a request, a refusal for a WebSocket."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import NoReturn

from fastapi.exceptions import ValidationException
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from roadseg_serve.errors import (
    PROBLEM_JSON,
    BadParameterError,
    OverloadedError,
    Problem,
    RequestError,
    bare_problem,
    problem_body,
    problem_of,
)
from roadseg_serve.http.openapi import FAULT_DETAIL
from roadseg_serve.http.request_id import STARTS
from roadseg_serve.settings import BackpressureConfig

FIRST_PRIVATE_CLOSE_CODE = 4000  # of a WebSocket; the HTTP status is added to it


class Problems:
    """Answer what the routes and the gate raise, and add the headers that the gate has left for any answer.

    Args:
        app: whose errors are answered.
        backpressure: what is answered where too much waits.
        note_refusal: hears of every request that is refused.
    """

    def __init__(
        self, app: ASGIApp, backpressure: BackpressureConfig, note_refusal: Callable[[RequestError], None]
    ) -> None:
        self._app = app
        self._backpressure = backpressure
        self._note_refusal = note_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; leaves what was raised in `scope["state"]["error"]`, and takes `scope["state"]["headers"]`."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        state = scope["state"]
        headers: dict[str, str] = {}
        state["headers"] = headers
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] in STARTS:
                MutableHeaders(scope=message).update(headers)
            await send(message)

        try:
            return await self._app(scope, receive, send_noted)
        except (ClientDisconnect, WebSocketDisconnect):
            return None  # nobody is left to answer
        except Exception as error:
            # Ray hands on an error of another process with the error itself as `cause`.
            state["error"] = getattr(error, "cause", error)
            if begun:  # the server breaks the answer off
                raise
            return await self._refuse(state["error"], scope, receive, send_noted)

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        """A RequestError is answered as the table says; anything else is a fault of ours, and its inside is kept."""
        if isinstance(error, RequestError):
            self._note_refusal(error)
            problem, detail = problem_of(error), str(error)
        else:
            problem, detail = bare_problem(HTTPStatus.INTERNAL_SERVER_ERROR), FAULT_DETAIL
        if isinstance(error, OverloadedError):
            problem = replace(problem, status=HTTPStatus(self._backpressure.status_code))
        headers = dict(problem.headers)
        if problem.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            headers["Retry-After"] = str(self._backpressure.retry_after_s)
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            close_code = FIRST_PRIVATE_CLOSE_CODE + problem.status
            await send({"type": "websocket.close", "code": close_code, "reason": problem.title})
        else:
            await _answer(scope, problem, detail, headers)(scope, receive, send)


async def answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses, such as an unknown route."""
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}. The routes are described at /docs."
    return _answer(request.scope, bare_problem(HTTPStatus(error.status_code)), detail, error.headers or {})


async def refuse_parameters(_request: HTTPConnection, error: Exception) -> NoReturn:
    """Query parameters that are not as the routes declare them.

    Raises:
        BadParameterError: always.
    """
    assert isinstance(error, ValidationException)
    faults = "; ".join(f"{fault['loc'][-1]}={str(fault['input'])[:50]}: {fault['msg']}" for fault in error.errors())
    raise BadParameterError(f"{faults}. Or leave it out; see /docs.") from error


def _answer(scope: Scope, problem: Problem, detail: str, headers: Mapping[str, str]) -> JSONResponse:
    body = problem_body(problem, detail, scope["state"]["request_id"])
    return JSONResponse(body, problem.status, headers=headers, media_type=PROBLEM_JSON)
