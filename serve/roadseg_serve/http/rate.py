"""A limit to the requests of one client."""

import math
import time
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network

import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from roadseg_serve.errors import RateLimitedError
from roadseg_serve.http.client import Network, address_of
from roadseg_serve.http.keys import is_open

IPV6_CLIENT_BITS = 64  # who has one IPv6 address has the whole network around it


def parse_rate(text: str) -> limits.RateLimitItem:
    """A rate such as 10/second, 100 per minute or 1000/5minutes.

    Raises:
        ValueError: it is none.
    """
    rate, *others = limits.parse_many(text)
    if others or rate.amount < 1:
        raise ValueError(f"{text!r} is not one rate such as 10/second")
    return rate


class RateLimit:
    """Count the requests of each client, by its API key where there are keys, otherwise by its address.

    The count is in the memory of this process, a sliding window made of the counts of this period and the one before:
    a client costs two numbers, and is forgotten two periods after its last request.

    Args:
        app: behind the limit, except for the paths that are open to all.
        rate: see `parse_rate`.
        trusted_proxies: see `client.address_of`.
    """

    def __init__(self, app: ASGIApp, rate: str, trusted_proxies: Sequence[Network]) -> None:
        self._app = app
        self._rate = parse_rate(rate)
        self._trusted_proxies = trusted_proxies
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; every answer carries `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).

        Raises:
            RateLimitedError: this client has to wait.
        """
        if scope["type"] == "lifespan" or is_open(scope):
            return await self._app(scope, receive, send)
        client = scope["state"].get("key") or _network_of(address_of(scope, self._trusted_proxies))
        allowed = self._limiter.hit(self._rate, client)
        reset_time, remaining = self._limiter.get_window_stats(self._rate, client)
        reset_s = max(1, math.ceil(reset_time - time.time()))
        scope["state"]["headers"] |= {
            "RateLimit-Policy": f'"client";q={self._rate.amount};w={self._rate.get_expiry()}',
            "RateLimit": f'"client";r={remaining};t={reset_s}',
        }
        if not allowed:
            scope["state"]["headers"]["Retry-After"] = str(reset_s)
            raise RateLimitedError(f"This server takes {self._rate} from one client. Try again in {reset_s} s.")
        return await self._app(scope, receive, send)


def _network_of(address: str) -> str:
    """Who counts as one client."""
    try:
        if isinstance(ip_address(address), IPv6Address):
            return str(ip_network((address, IPV6_CLIENT_BITS), strict=False))
    except ValueError:  # no address, but a socket's name
        pass
    return address
