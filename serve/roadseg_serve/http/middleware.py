"""What every request passes on its way to the routes."""

from collections.abc import Callable
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from roadseg_serve.errors import RequestError
from roadseg_serve.http.access_log import AccessLog
from roadseg_serve.http.deadline import Deadline
from roadseg_serve.http.headers import AnswerHeaders
from roadseg_serve.http.keys import KeyGuard, Keys
from roadseg_serve.http.problem import Problems
from roadseg_serve.http.rate import RateLimit
from roadseg_serve.settings import AppArgs


def middleware(args: AppArgs, keys: Keys | None, note_refusal: Callable[[RequestError], None]) -> list[Middleware]:
    """In the order in which a request passes it; without `keys`, everyone is let in."""
    gate = args.gate
    # uvicorn's own annotations know only its own ASGI types.
    proxy_headers: Any = ProxyHeadersMiddleware
    passed = [
        Middleware(proxy_headers, trusted_hosts=[str(network) for network in gate.trusted_proxies]),
        Middleware(AnswerHeaders),
        Middleware(AccessLog),
    ]
    if gate.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=gate.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID"],
            expose_headers=["*"],
        )
        passed.append(cors)
    passed += [
        Middleware(Problems, backpressure=args.backpressure_config, note_refusal=note_refusal),
        Middleware(Deadline, receive_timeout_s=gate.receive_timeout_s, request_timeout_s=gate.request_timeout_s),
    ]
    if keys is not None:
        passed.append(Middleware(KeyGuard, keys=keys))
    if gate.rate_limit is not None:
        passed.append(Middleware(RateLimit, rate=gate.rate_limit))
    return passed
