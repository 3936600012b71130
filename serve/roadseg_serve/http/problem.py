"""Every error as `application/problem+json` (RFC 9457), or as the refusal of a WebSocket."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NoReturn

from fastapi.exceptions import ValidationException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from roadseg_serve.errors import BadParameterError, OverloadedError, Problem, RequestError
from roadseg_serve.settings import BackpressureConfig

PROBLEM_JSON = "application/problem+json"
# A bug: its own text is for the log, not for the client.
FAULT = Problem(500, "", "Internal Server Error", "The server failed on this request. The cause is in its log.")
BUSY = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
FIRST_PRIVATE_CLOSE_CODE = 4000  # of a WebSocket; we add the HTTP status


class ProblemDocument(BaseModel, title="Problem"):
    """An error (RFC 9457); `detail` says what to do about it."""

    type: str = Field(description="A URN for the kind of error; about:blank if the status says it all.")
    title: str = Field(description="The kind of error in a few words.")
    status: int = Field(description="The HTTP status.", ge=400, le=599)
    detail: str = Field(description="What happened this time, and what to do about it.")
    request_id: str = Field(description="As in X-Request-ID; finds the request in the server's log.")


def bare_problem(status: int, headers: Mapping[str, str] | None = None) -> Problem:
    """A problem that is fully described by its HTTP status, such as 404."""
    return Problem(status, "", HTTPStatus(status).phrase, "See /docs.", headers or {})


def problem_body(problem: Problem, detail: str, request_id: str) -> dict[str, Any]:
    """A `ProblemDocument` as JSON."""
    return ProblemDocument(
        type=problem.type, title=problem.title, status=problem.status, detail=detail, request_id=request_id
    ).model_dump()


def problem_response(scope: Scope, problem: Problem, detail: str, *, retry_after_s: int | str) -> JSONResponse:
    """The HTTP response; a status that says "busy" carries `Retry-After`."""
    busy = {"Retry-After": str(retry_after_s)} if problem.status in BUSY else {}
    body = problem_body(problem, detail, scope["state"]["request_id"])
    return JSONResponse(body, problem.status, headers={**problem.headers, **busy}, media_type=PROBLEM_JSON)


class Problems:
    """Answer the errors of everything inside, and call `note_refusal` with every RequestError."""

    def __init__(
        self, app: ASGIApp, backpressure: BackpressureConfig, note_refusal: Callable[[RequestError], None]
    ) -> None:
        self._app = app
        self._backpressure = backpressure
        self._note_refusal = note_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; leaves the error in `scope["state"]["error"]` for the log."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        has_started = False

        async def send_noted(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            return await self._app(scope, receive, send_noted)
        except (ClientDisconnect, WebSocketDisconnect):
            return None  # there is nobody left to answer
        except Exception as error:
            scope["state"]["error"] = error
            if has_started:  # too late for another answer: the server closes the connection
                raise
            return await self._refuse(error, scope, receive, send)

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(error, RequestError):
            self._note_refusal(error)
            problem, detail = error.problem, str(error)
        else:
            problem, detail = FAULT, FAULT.remedy
        if isinstance(error, OverloadedError):
            problem = replace(problem, status=self._backpressure.status_code)
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            close_code = FIRST_PRIVATE_CLOSE_CODE + problem.status
            await send({"type": "websocket.close", "code": close_code, "reason": problem.title})
        else:
            response = problem_response(scope, problem, detail, retry_after_s=self._backpressure.retry_after_s)
            await response(scope, receive, send)


async def answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answer what the framework refuses, such as an unknown route."""
    assert isinstance(error, HTTPException)
    problem = bare_problem(error.status_code, error.headers)
    detail = f"{request.method} {request.url.path}: {error.detail}. See /docs for the routes."
    return problem_response(request.scope, problem, detail, retry_after_s=1)


async def refuse_parameters(_request: HTTPConnection, error: Exception) -> NoReturn:
    """Turn FastAPI's error about query parameters into BadParameterError."""
    assert isinstance(error, ValidationException)
    faults: dict[str, Any] = {}
    for fault in error.errors():  # a second one about the same parameter would only say that it is not None either
        faults.setdefault(str(fault["loc"][1]), fault)
    detail = "; ".join(f"{name}={str(fault['input'])[:50]}: {fault['msg']}" for name, fault in faults.items())
    raise BadParameterError(f"{detail}. Or leave the parameter out; see /docs.") from error
