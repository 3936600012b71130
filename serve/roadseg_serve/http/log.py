"""The access log: one line for each request, in the stream that Ray Serve writes.

The line never has a payload, a key, a query or a path that the client made up: of the URL it has the route's template.
"""

import logging
import time
from collections.abc import Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadseg_serve.errors import RequestError
from roadseg_serve.http.client import Network, address_of
from roadseg_serve.messages import Answer

# Ray Serve puts its handlers on "ray.serve" in every replica: they add the request id and where the line is from.
log = logging.getLogger("ray.serve.roadseg")

CLIENT_GONE = 499  # what proxies log when there is nobody left to answer
QUIET_ROUTES = frozenset({"/health", "/v1/status"})  # asked all the time
KEY_ID_DIGITS = 8  # of the key's sha256: enough to tell which key is still in use


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


def logging_config(log_format: LogFormat) -> dict[str, Any]:
    """Ray Serve's `logging_config`: its own lines for each request and stage give way to the one of this module."""
    return {"encoding": log_format.upper(), "enable_access_log": False}


class AccessLog:
    """Write the line when a request is done, or a WebSocket closed.

    Args:
        app: whose requests are logged.
        trusted_proxies: see `client.address_of`.
    """

    def __init__(self, app: ASGIApp, trusted_proxies: Sequence[Network]) -> None:
        self._app = app
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; reads what others have left in `scope["state"]`: request_id, key, error, and the Answer."""
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
                    "client": address_of(scope, self._trusted_proxies),
                },
                scope["state"],
            )


def _write(facts: dict[str, Any], state: dict[str, Any]) -> None:
    """One line; its level says how urgent it is."""
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
    match message["type"]:
        case "http.response.start" | "websocket.http.response.start":
            return int(message["status"])
        case "websocket.accept":
            return HTTPStatus.SWITCHING_PROTOCOLS
        case "websocket.close":
            return int(message.get("code", 1000))
    return None


def _size_bytes(message: Message) -> int:
    """Of what a message carries: a part of a body, or a frame of a WebSocket."""
    return len(message.get("body") or message.get("bytes") or (message.get("text") or "").encode())


def _ms(time_s: float) -> float:
    return round(1000 * time_s, 1)
