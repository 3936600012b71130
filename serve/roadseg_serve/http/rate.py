"""The rate limit of each client."""

import math
import time
from ipaddress import ip_network

import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from roadseg_serve.errors import RateLimitedError
from roadseg_serve.http.keys import is_open

IPV6_CLIENT_BITS = 64  # whoever has one IPv6 address has the whole network around it


class RateLimit:
    """Count the requests of each client: by API key if there are keys, otherwise by address.

    The counts live in the memory of this process, in a sliding window made of this period and the one before. A client
    costs two numbers and is forgotten two periods after its last request. The open paths are not counted.
    """

    def __init__(self, app: ASGIApp, rate: str) -> None:
        self._app = app
        self._rate = limits.parse(rate)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; every answer carries `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).

        Raises:
            RateLimitedError: this client has to wait.
        """
        if scope["type"] == "lifespan" or is_open(scope):
            return await self._app(scope, receive, send)
        client = scope["state"].get("key") or _client_of(scope)
        allowed = self._limiter.hit(self._rate, client)
        reset_time, remaining = self._limiter.get_window_stats(self._rate, client)
        reset_s = max(1, math.ceil(reset_time - time.time()))
        scope["state"]["headers"] |= {
            "RateLimit-Policy": f'"client";q={self._rate.amount};w={self._rate.get_expiry()}',
            "RateLimit": f'"client";r={remaining};t={reset_s}',
        }
        if not allowed:
            scope["state"]["headers"]["Retry-After"] = str(reset_s)
            raise RateLimitedError(f"The limit is {self._rate} for each client. Try again in {reset_s} s.")
        return await self._app(scope, receive, send)


def _client_of(scope: Scope) -> str:
    """The client's address, or its network for IPv6."""
    address = str((scope.get("client") or ("unknown",))[0])
    try:
        return str(ip_network((address, IPV6_CLIENT_BITS), strict=False)) if ":" in address else address
    except ValueError:  # not an IP address, such as the name of a socket
        return address
