"""Time limits for receiving a body and for answering a request."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadseg_serve.errors import ReceiveTimeoutError, RequestTimeoutError


class Deadline:
    """Give up on a body that arrives too slowly, and cancel work that takes too long.

    Both times start with the request's head. WebSockets have no limit.
    """

    def __init__(self, app: ASGIApp, receive_timeout_s: float, request_timeout_s: float) -> None:
        self._app = app
        self._receive_timeout_s = receive_timeout_s
        self._request_timeout_s = request_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI.

        Raises:
            ReceiveTimeoutError: from `receive`, if the body is late.
            RequestTimeoutError: the answer is late.
        """
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        receive_deadline = asyncio.get_running_loop().time() + self._receive_timeout_s
        complete = False

        async def receive_timed() -> Message:
            nonlocal complete
            if complete:  # only a disconnect can follow
                return await receive()
            try:
                async with asyncio.timeout_at(receive_deadline):
                    message = await receive()
            except TimeoutError as error:
                raise ReceiveTimeoutError(
                    f"The body did not arrive within {self._receive_timeout_s:g} s. Send a smaller picture, "
                    "or use a faster connection."
                ) from error
            complete = not message.get("more_body", False)
            return message

        deadline = asyncio.timeout(self._request_timeout_s)
        try:
            async with deadline:
                return await self._app(scope, receive_timed, send)
        except TimeoutError as error:
            if not deadline.expired():  # the app's own
                raise
            raise RequestTimeoutError(
                f"No answer within {self._request_timeout_s:g} s. Try again later, or send a smaller picture."
            ) from error
