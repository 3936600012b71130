"""What Ray Serve answers itself, before a request reaches the routes: turned into a problem like every other error."""

from dataclasses import replace
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadseg_serve.errors import (
    PROBLEM_JSON,
    PROBLEMS,
    ModelUnavailableError,
    OverloadedError,
    Problem,
    RequestTimeoutError,
    bare_problem,
    problem_body,
)
from roadseg_serve.observe.metrics import RayRefusals

REFUSALS = frozenset({404, 408, 429, 503})
RETRY_AFTER_S = "1"  # where Ray does not know


class RayAnswers:
    """Put a problem in the place of Ray Serve's own refusals, which are plain text; the routes have no such errors.

    Args:
        app: Ray Serve's HTTP server; around both is `RequestId`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._refusals = RayRefusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; takes `scope["state"]["request_id"]`."""
        refused = False

        async def send_problem(message: Message) -> None:
            nonlocal refused
            if _is_refusal(message):
                refused = True
                headers = Headers(raw=message["headers"])
                problem = _problem_for(message["status"], headers)
                if problem.status != HTTPStatus.NOT_FOUND:  # whoever looks for other programs finds none
                    self._refusals.note(problem)
                await _answer(problem, headers, scope["state"]["request_id"])(scope, receive, send)
            elif not refused:
                await send(message)

        await self._app(scope, receive, send_problem)


def _is_refusal(message: Message) -> bool:
    return (
        message["type"] == "http.response.start"
        and message["status"] in REFUSALS
        and Headers(raw=message["headers"]).get("Content-Type", "").startswith("text/plain")
    )


def _problem_for(status: int, headers: Headers) -> Problem:
    """What is answered instead.

    Args:
        status: of Ray's answer.
        headers: of the same; a full queue has `Retry-After`, as `app.build` tells Ray.
    """
    if status == HTTPStatus.NOT_FOUND:
        return bare_problem(HTTPStatus.NOT_FOUND)
    if status == HTTPStatus.REQUEST_TIMEOUT:
        return PROBLEMS[RequestTimeoutError]
    if "Retry-After" in headers:
        return replace(PROBLEMS[OverloadedError], status=HTTPStatus(status))
    return PROBLEMS[ModelUnavailableError]


def _answer(problem: Problem, headers: Headers, request_id: str) -> JSONResponse:
    is_busy = problem.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
    kept = {"Retry-After": headers.get("Retry-After", RETRY_AFTER_S)} if is_busy else {}
    body = problem_body(problem, problem.remedy, request_id)
    return JSONResponse(body, problem.status, headers=kept, media_type=PROBLEM_JSON)
