"""The access log: one line per request, in the stream that Ray Serve writes.

A line never holds a payload, a key, a query or a path that the client made up: of the URL it has the route's template.
"""

import logging
import time
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadseg_serve.errors import RequestError
from roadseg_serve.messages import Answer

# Every replica of Ray Serve has handlers on "ray.serve", which add the request id and the replica.
log = logging.getLogger("ray.serve.roadseg")

CLIENT_GONE = 499  # what proxies log if the client left before the answer
QUIET_ROUTES = frozenset({"/health", "/v1/status"})  # polled all the time
KEY_ID_DIGITS = 8  # of the key's sha256: enough to tell which key is still in use


class AccessLog:
    """Write the line when a request is done, or a WebSocket closed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; reads `scope["state"]`, where others left request_id, key, error and answer."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        started_s = time.perf_counter()
        status, bytes_in, bytes_out = CLIENT_GONE, 0, 0

        async def receive_counted() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += _size_bytes(message)
            return message

        async def send_counted(message: Message) -> None:
            nonlocal status, bytes_out
            status = _status_of(message) or status
            bytes_out += _size_bytes(message)
            await send(message)

        try:
            return await self._app(scope, receive_counted, send_counted)
        finally:
            _write(
                {
                    "method": scope.get("method", "WS"),
                    "route_template": getattr(scope.get("route"), "path", None),
                    "status": status,
                    "duration_ms": _ms(time.perf_counter() - started_s),
                    "bytes_in": bytes_in,
                    "bytes_out": bytes_out,
                    "client": (scope.get("client") or ("unknown",))[0],
                },
                scope["state"],
            )


def _write(facts: dict[str, Any], state: dict[str, Any]) -> None:
    """Write one line: an ERROR for a bug, a WARNING for any other 5xx."""
    facts["request_id"] = state["request_id"]
    if "key" in state:
        facts["key_id"] = state["key"][:KEY_ID_DIGITS]
    answer = state.get("answer")
    if isinstance(answer, Answer):
        facts["model"] = f"{answer.model.name}/{answer.model.version}"
        facts["times_ms"] = {step: _ms(time_s) for step, time_s in answer.times_s.items()}
    error = state.get("error")
    if error is not None:
        facts["error"] = type(error).__name__
    fault = None if isinstance(error, RequestError) else error
    if fault is not None:
        level = logging.ERROR
    elif 500 <= facts["status"] < 600:  # not the close code of a WebSocket
        level = logging.WARNING
    else:
        level = logging.DEBUG if facts["route_template"] in QUIET_ROUTES else logging.INFO
    message = "%(method)s %(route_template)s %(status)d %(duration_ms)s ms, request %(request_id)s"
    log.log(level, message, facts, exc_info=fault, extra=facts)


def _status_of(message: Message) -> int | None:
    implied = {"websocket.accept": HTTPStatus.SWITCHING_PROTOCOLS, "websocket.close": 1000}
    return message.get("status") or message.get("code") or implied.get(message["type"])


def _size_bytes(message: Message) -> int:
    """Of the part of a body, or of the WebSocket frame, in a message."""
    return len(message.get("body") or message.get("bytes") or (message.get("text") or "").encode())


def _ms(time_s: float) -> float:
    return round(1000 * time_s, 1)
