"""API keys: where they are read, and the guard that asks for one.

Only digests of the keys are kept. A key never gets into a setting, a log line or an answer.
"""

import hashlib
import hmac
import logging
import os
import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from roadseg_serve.errors import BadKeyError, KeysError
from roadseg_serve.settings import GateArgs

log = logging.getLogger("ray.serve.roadseg")

# All other routes need a key, including routes that are added later. The page /status is public; its figures, at
# /v1/status, are not.
OPEN_PATHS = frozenset({"/", "/status", "/health", "/docs", "/openapi.json"})
OPEN_FOLDER = "/static-offline-docs/"  # scripts and styles of /docs

ACCEPTED = re.compile(r"[\x21-\x7e]+")  # visible ASCII: what fits into a header
SUBPROTOCOL = "key."  # prefix of a WebSocket subprotocol that carries the key, beside `stream.SUBPROTOCOL`


def is_open(scope: Scope) -> bool:
    """Whether this path needs no key and does not count towards the rate limit."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def read_keys(args: GateArgs) -> "Keys | None":
    """The API keys of the settings; None if the server is open to everyone.

    Raises:
        KeysError: the keys cannot be read, or there are none.
    """
    if args.api_keys_file is not None:
        return Keys(_read(args.api_keys_file), args.api_keys_file)
    name = args.api_keys_env
    if name is None:
        return None
    if name not in os.environ:
        raise KeysError(f"the environment variable {name} must hold the API keys, but it is not set; set it")
    return Keys(_parse(os.environ[name], f"the environment variable {name}"))


class Keys:
    """The valid keys, as sha256 digests in hexadecimal; `file` is read again whenever it changes."""

    def __init__(self, digests: tuple[str, ...], file: Path | None = None) -> None:
        self._digests = digests
        self._file = file
        self._file_state = _state_of(file)

    def find(self, key: str) -> str | None:
        """The sha256 of `key` if it is valid; the time this takes says nothing about the valid keys."""
        self._follow_file()
        digest = hashlib.sha256(key.encode()).hexdigest()
        matches = [hmac.compare_digest(digest, valid) for valid in self._digests]  # always compare with all of them
        return digest if any(matches) else None

    def _follow_file(self) -> None:
        """Read the file again if it has changed; while it is unreadable, no key is valid."""
        state = _state_of(self._file)
        if self._file is None or state == self._file_state:
            return
        self._file_state = state
        try:
            self._digests = _read(self._file)
            log.info("reloaded the API keys: %d are valid", len(self._digests))
        except KeysError as error:
            self._digests = ()
            log.error("all API keys are rejected until this is fixed: %s", error)


def _state_of(file: Path | None) -> tuple[int, ...] | None:
    """Changes if the file is rewritten, replaced, or reached by another link, as Kubernetes updates Secrets."""
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size) if status else None


def _read(file: Path) -> tuple[str, ...]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"the API keys in {file} cannot be read ({error}); fix the file or api_keys_file") from error
    return _parse(text, str(file))


def _parse(text: str, source: str) -> tuple[str, ...]:
    """Digests of the keys, which are separated by commas or line ends; a line that starts with # is a comment."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    keys = [key.strip() for line in lines for key in line.split(",") if key.strip()]
    if not keys:
        raise KeysError(f"{source} holds no API key; write one per line")
    for number, key in enumerate(keys, 1):
        if not ACCEPTED.fullmatch(key):
            raise KeysError(f"API key {number} in {source} has a character that no header can carry; use visible ASCII")
    return tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys)


class KeyGuard:
    """Let only requests with a valid API key through, except to the open paths."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; leaves the digest of the key in `scope["state"]["key"]`.

        Raises:
            BadKeyError: the request has no key, or an invalid one.
        """
        if scope["type"] == "lifespan" or is_open(scope):
            return await self._app(scope, receive, send)
        key = _sent_key(scope)
        if not key:
            raise BadKeyError("Send your API key as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'.")
        digest = self._keys.find(key)
        if digest is None:
            raise BadKeyError("This API key is not valid, or no longer. Ask the operator of this server for another.")
        scope["state"]["key"] = digest
        scope["state"]["headers"]["Cache-Control"] = "no-store"  # caches do not know that X-API-Key is a credential
        return await self._app(scope, receive, send)


def _sent_key(scope: Scope) -> str:
    """The key, or "". Scripts in a browser cannot set headers on a WebSocket, but they can set subprotocols."""
    headers = Headers(scope=scope)
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if "X-API-Key" in headers:
        return headers["X-API-Key"]
    subprotocols = scope.get("subprotocols", [])
    return next((name.removeprefix(SUBPROTOCOL) for name in subprotocols if name.startswith(SUBPROTOCOL)), "")
