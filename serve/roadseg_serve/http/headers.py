"""The headers of every answer: the request's id, and what protects browsers."""

import base64
import hashlib
import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STARTS = {"http.response.start", "websocket.http.response.start", "websocket.accept"}  # messages that carry headers
REQUEST_ID_HEADER = "X-Request-ID"
ACCEPTED = re.compile(r"[\x21-\x7e]{1,128}")  # visible ASCII: the id goes into logs and headers
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",  # the media type is right; do not guess a script
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class AnswerHeaders:
    """Give each request an id, and add `scope["state"]["headers"]` to every answer; others may put more there.

    The id is the client's `X-Request-ID` if it is safe in a log, otherwise a new one. It also runs around Ray Serve's
    proxy, which logs and refuses requests before the routes see them. The package asgi-correlation-id adds a second
    header to an answer that has one, and none to the handshake of a WebSocket.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; leaves the id in `scope["state"]["request_id"]`."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        received = MutableHeaders(scope=scope)
        request_id = received.get(REQUEST_ID_HEADER, "")
        if not ACCEPTED.fullmatch(request_id):
            request_id = received[REQUEST_ID_HEADER] = uuid.uuid4().hex
        headers = SAFE_HEADERS | {REQUEST_ID_HEADER: request_id}
        scope.setdefault("state", {}).update(request_id=request_id, headers=headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in STARTS:
                MutableHeaders(scope=message).update(headers)
            await send(message)

        return await self._app(scope, receive, send_with_headers)


def page_policy(page: str) -> str:
    """The `Content-Security-Policy` of an HTML page: it runs only its own scripts and talks only to this server."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; "
        "style-src 'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
