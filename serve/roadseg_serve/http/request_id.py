"""Request ids: each request has one, the same in the client, Ray's log, our log and the answer."""

import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STARTS = {"http.response.start", "websocket.http.response.start", "websocket.accept"}  # messages that carry headers
REQUEST_ID_HEADER = "X-Request-ID"
ACCEPTED = re.compile(r"[\x21-\x7e]{1,128}")  # visible ASCII: the id goes into logs and headers


class RequestId:
    """Keep the client's `X-Request-ID` if it is safe in a log, otherwise make one; send it back.

    It also runs around Ray Serve's proxy, which logs and refuses requests before the routes see them. The package
    asgi-correlation-id adds a second header to an answer that has one, and none to the handshake of a WebSocket.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; leaves the id in `scope["state"]["request_id"]`."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        headers = MutableHeaders(scope=scope)
        request_id = headers.get(REQUEST_ID_HEADER, "")
        if not ACCEPTED.fullmatch(request_id):
            request_id = headers[REQUEST_ID_HEADER] = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] in STARTS:
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        return await self._app(scope, receive, send_with_id)
