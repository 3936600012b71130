"""What every request passes before the routes, outermost first.

RequestId -> AccessLog -> SafeHeaders -> CORS -> Problems -> Deadline -> KeyGuard -> RateLimit -> routes
"""

from collections.abc import Callable

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from roadseg_serve.errors import RequestError
from roadseg_serve.http.deadline import Deadline
from roadseg_serve.http.headers import SafeHeaders
from roadseg_serve.http.keys import KeyGuard, Keys, describe_keys
from roadseg_serve.http.log import AccessLog
from roadseg_serve.http.problem import Problems
from roadseg_serve.http.rate import RateLimit
from roadseg_serve.http.request_id import RequestId
from roadseg_serve.settings import BackpressureConfig, GateArgs


def read_keys(args: GateArgs) -> Keys | None:
    """The API keys, or None where anyone may ask.

    Raises:
        KeysError: they cannot be read, or there are none.
    """
    if args.api_keys_file is not None:
        return Keys.from_file(args.api_keys_file)
    if args.api_keys_env is not None:
        return Keys.from_environment(args.api_keys_env)
    return None


def put_gate(
    api: FastAPI, args: GateArgs, backpressure: BackpressureConfig, note_refusal: Callable[[RequestError], None]
) -> None:
    """Put the gate before the routes of `api`.

    Args:
        api: with the routes.
        args: what the gate asks for.
        backpressure: what is answered where too much waits.
        note_refusal: hears of every request that is refused.

    Raises:
        KeysError: the API keys cannot be read, or there are none.
    """
    keys = read_keys(args)
    # Each is put around those before it.
    if args.rate_limit is not None:
        api.add_middleware(RateLimit, rate=args.rate_limit, trusted_proxies=args.trusted_proxies)
    if keys is not None:
        api.add_middleware(KeyGuard, keys=keys)
        describe_keys(api)
    api.add_middleware(Deadline, receive_timeout_s=args.receive_timeout_s, request_timeout_s=args.request_timeout_s)
    api.add_middleware(Problems, backpressure=backpressure, note_refusal=note_refusal)
    if args.cors_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=args.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID"],
            expose_headers=["*"],
        )
    api.add_middleware(SafeHeaders)
    api.add_middleware(AccessLog, trusted_proxies=args.trusted_proxies)
    api.add_middleware(RequestId)
