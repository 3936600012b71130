"""What runs around Ray Serve's own HTTP server, which answers some requests before they reach the routes."""

from dataclasses import replace
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadseg_serve.errors import ModelUnavailableError, OverloadedError, Problem, RequestTimeoutError
from roadseg_serve.http.headers import AnswerHeaders
from roadseg_serve.http.problem import bare_problem, problem_response
from roadseg_serve.observe.metrics import RayRefusals
from roadseg_serve.observe.trace import TraceEdge

REFUSALS = frozenset({404, 408, 429, 503})


def middleware() -> list[Middleware]:
    """What Ray Serve puts around its HTTP server, innermost first: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(RayProblems), Middleware(TraceEdge), Middleware(AnswerHeaders)]


class RayProblems:
    """Replace the plain-text refusals of Ray Serve by problem+json; the routes never answer errors as plain text.

    Within `AnswerHeaders`, around Ray Serve's HTTP server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._refusals = RayRefusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; reads `scope["state"]["request_id"]`."""
        refused = False

        async def send_problem(message: Message) -> None:
            nonlocal refused
            if _is_refusal(message):
                refused = True
                headers = Headers(raw=message["headers"])
                problem = _problem_for(message["status"], headers)
                if problem.status != HTTPStatus.NOT_FOUND:  # scanners that look for other software do not count
                    self._refusals.note(problem)
                retry_after_s = headers.get("Retry-After", "1")
                response = problem_response(scope, problem, problem.remedy, retry_after_s=retry_after_s)
                await response(scope, receive, send)
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
    """The problem that stands for Ray's answer; only a full queue has `Retry-After`, as `app.build` configures it."""
    if status == HTTPStatus.NOT_FOUND:
        return bare_problem(HTTPStatus.NOT_FOUND)
    if status == HTTPStatus.REQUEST_TIMEOUT:
        return RequestTimeoutError.problem
    if "Retry-After" in headers:
        return replace(OverloadedError.problem, status=status)
    return ModelUnavailableError.problem
