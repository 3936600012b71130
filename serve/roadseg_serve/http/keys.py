"""API keys: where they are read, and the guard that asks for one.

Only digests of the keys are kept. A key is never part of a setting, a log line or an answer.
"""

import hashlib
import hmac
import logging
import os
import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from roadseg_serve.errors import BadKeyError, KeysError
from roadseg_serve.http.openapi import problem_responses

log = logging.getLogger("ray.serve.roadseg")

# All other routes are guarded, those that are yet to be written too.
# The page /status is open as the other one is; the figures in it, at /v1/status, are not.
OPEN_PATHS = frozenset({"/", "/status", "/health", "/docs", "/openapi.json"})
OPEN_FOLDER = "/static-offline-docs/"  # what the page at /docs needs

ACCEPTED = re.compile(r"[\x21-\x7e]+")  # visible ASCII: what a header carries
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
SUBPROTOCOL = "key."  # and the key: of a WebSocket that offers it beside `stream.SUBPROTOCOL`


def is_open(scope: Scope) -> bool:
    """Whether anyone may ask for this path."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


class Keys:
    """The keys that are valid now, as sha256 digests.

    Args:
        digests: hexadecimal.
        file: where they are read again when it changes.
    """

    def __init__(self, digests: tuple[str, ...], file: Path | None = None) -> None:
        self._digests = digests
        self._file = file
        self._seen = _state_of(file)

    @classmethod
    def from_file(cls, file: Path) -> "Keys":
        """Keys that are read again when the file changes.

        Raises:
            KeysError: it cannot be read, or has no keys.
        """
        return cls(_read(file), file)

    @classmethod
    def from_environment(cls, name: str) -> "Keys":
        """Keys of an environment variable; they stay as long as the process.

        Raises:
            KeysError: it is not set, or has no keys.
        """
        if name not in os.environ:
            raise KeysError(f"the environment variable {name} is to hold the API keys and is not set; set it")
        return cls(_parse(os.environ[name], f"the environment variable {name}"))

    def find(self, key: str) -> str | None:
        """The sha256 of `key` where it is valid, in a time that tells nothing about the valid ones."""
        self._follow_file()
        digest = hashlib.sha256(key.encode()).hexdigest()
        matches = [hmac.compare_digest(digest, valid) for valid in self._digests]  # all of them, always
        return digest if any(matches) else None

    def _follow_file(self) -> None:
        """Read the file again where it has changed; as long as it cannot be read, no key is valid."""
        seen = _state_of(self._file)
        if self._file is None or seen == self._seen:
            return
        self._seen = seen
        try:
            self._digests = _read(self._file)
            log.info("read the API keys again: %d are valid", len(self._digests))
        except KeysError as error:
            self._digests = ()
            log.error("no API key is valid until this is mended: %s", error)


def _state_of(file: Path | None) -> tuple[int, ...] | None:
    """What changes when the file does: rewritten, replaced, or behind a link that was turned, as Kubernetes does."""
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size) if status else None


def _read(file: Path) -> tuple[str, ...]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"the API keys in {file} cannot be read ({error}); mend the file or api_keys_file") from error
    return _parse(text, str(file))


def _parse(text: str, where: str) -> tuple[str, ...]:
    """Digests of the keys: one or several a line, separated by commas; a line that begins with # is a comment."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    keys = [key.strip() for line in lines for key in line.split(",") if key.strip()]
    if not keys:
        raise KeysError(f"{where} holds no API key; write one a line")
    for number, key in enumerate(keys, 1):
        if not ACCEPTED.fullmatch(key):
            raise KeysError(f"API key {number} in {where} has a character that no header carries; use visible ASCII")
    return tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys)


class KeyGuard:
    """Let through who knows a key.

    Args:
        app: what is guarded, except for the open paths.
        keys: the valid ones.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; leaves the digest of the key in `scope["state"]["key"]`.

        Raises:
            BadKeyError: no key was sent, or one that is not valid.
        """
        if scope["type"] == "lifespan" or is_open(scope):
            return await self._app(scope, receive, send)
        key = _sent_key(scope)
        if not key:
            raise BadKeyError("Send your API key as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'.")
        digest = self._keys.find(key)
        if digest is None:
            raise BadKeyError("The API key is not valid, or not any more. Ask whoever runs this server for another.")
        scope["state"]["key"] = digest
        scope["state"]["headers"]["Cache-Control"] = "no-store"  # caches do not know X-API-Key for what it is
        return await self._app(scope, receive, send)


def _sent_key(scope: Scope) -> str:
    """The key, or nothing. A browser lets no script put headers on a WebSocket, but subprotocols."""
    headers = Headers(scope=scope)
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if "X-API-Key" in headers:
        return headers["X-API-Key"]
    subprotocols = scope.get("subprotocols", [])
    return next((name.removeprefix(SUBPROTOCOL) for name in subprotocols if name.startswith(SUBPROTOCOL)), "")


def describe_keys(api: FastAPI) -> None:
    """Tell OpenAPI, and with it the page at /docs, which routes want a key and how it is sent."""
    describe = api.openapi
    refusal = problem_responses(BadKeyError)

    def describe_with_keys() -> dict[str, Any]:
        document = describe()
        document.setdefault("components", {})["securitySchemes"] = SCHEMES
        for path, operations in document["paths"].items():
            if path not in OPEN_PATHS:
                for operation in operations.values():
                    operation["security"] = [{name: []} for name in SCHEMES]
                    operation["responses"] |= {str(status): body for status, body in refusal.items()}
        return document

    api.openapi = describe_with_keys  # type: ignore[method-assign]  # the way FastAPI documents
