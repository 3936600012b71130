"""Request ids: every request has one, in Ray's log, in ours and in the answer."""

import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadseg_serve.http.ray_answers import RayAnswers
from roadseg_serve.observe.trace import TraceEdge

STARTS = {"http.response.start", "websocket.http.response.start", "websocket.accept"}  # messages that carry headers
REQUEST_ID_HEADER = "X-Request-ID"
ACCEPTED = re.compile(r"[\x21-\x7e]{1,128}")  # visible ASCII: an id goes into logs and headers


class RequestId:
    """Keep the client's `X-Request-ID` where it is fit for a log, otherwise make one; answer with it.

    It runs twice: in front of the routes, and around Ray Serve's HTTP proxy, which takes the id of the request for its
    own and adds it to every answer. There it makes sure that Ray knows no other id, and that it is added once.
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


def around_ray() -> list[Middleware]:
    """What Ray Serve's HTTP proxy runs around itself, asked for by `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`."""
    return [Middleware(RayAnswers), Middleware(TraceEdge), Middleware(RequestId)]  # the last is the outermost
