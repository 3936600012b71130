"""Model stores on S3: what lies under `s3://bucket/prefix` of any S3-compatible server.

Server and keys are those of the standard AWS variables: AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3), AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and the others that boto3 reads.
"""

import functools
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from roadseg_serve.errors import ArtefactError, StoreUnreachableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SCHEME = "s3://"

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3, 10
PAUSE_S, LONGEST_PAUSE_S = 0.25, 4.0  # between two attempts; it doubles
# A start must not hang on a wrong address; a file of which the server has already spoken is worth some waiting.
ASK_PATIENCE_S, DOWNLOAD_PATIENCE_S = 4.0, 60.0
CHUNK_BYTES = 1 << 16

KEYS_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "403")
OVERLOADED = ("SlowDown", "RequestTimeout")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class S3Folder:
    """The objects whose keys begin with `prefix/`; `str()` gives the URI.

    Attributes:
        bucket: its name.
        prefix: without slashes at its ends.
    """

    bucket: str
    prefix: str

    @classmethod
    def at(cls, uri: str) -> "S3Folder":
        """The folder that `s3://bucket/prefix` names; nothing is asked yet.

        Raises:
            ArtefactError: the URI names no bucket or no folder in it.
        """
        bucket, _, prefix = uri.removeprefix(SCHEME).partition("/")
        if not bucket or not prefix.strip("/"):
            raise ArtefactError(f"{uri} names no model version; write {SCHEME}bucket/<store>/<name>/<version>")
        return cls(bucket, prefix.strip("/"))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}"

    @property
    def server(self) -> str:
        """The server's address."""
        return self._client.meta.endpoint_url

    def read(self, name: str) -> bytes:
        """The bytes of a small object.

        Raises:
            FileNotFoundError: there is no such object.
            StoreUnreachableError: the server does not answer.
            ArtefactError: it refuses.
        """

        def operation() -> bytes:
            return self._client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["Body"].read()

        return self._ask(operation, ASK_PATIENCE_S)

    def size_bytes(self, name: str) -> int:
        """The size of an object, which is not fetched; raises as `read` does."""

        def operation() -> int:
            return self._client.head_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["ContentLength"]

        return self._ask(operation, ASK_PATIENCE_S)

    def download(self, name: str, path: Path) -> None:
        """Write an object to a local path, from its beginning again where it is cut off; raises as `read` does."""

        def operation() -> None:
            body = self._client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["Body"]
            with path.open("wb") as file:
                shutil.copyfileobj(body, file, CHUNK_BYTES)

        self._ask(operation, DOWNLOAD_PATIENCE_S)

    def _ask(self, operation: Callable[[], Answer], patience_s: float) -> Answer:
        """The answer to an operation that is repeated while the server does not answer, for `patience_s`."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # only who uses S3 loads it

        self._client  # noqa: B018  # that it cannot be made is no fault of the server
        deadline, pause_s = time.monotonic() + patience_s, PAUSE_S
        while True:
            try:
                return operation()
            except (BotoCoreError, ClientError) as error:
                if _is_absence(error):
                    raise FileNotFoundError(f"there is no such object in {self}") from error
                if not _may_pass(error):
                    raise ArtefactError(self._explain(error)) from error
                if time.monotonic() + pause_s > deadline:
                    raise StoreUnreachableError(
                        f"the store of {self} does not answer at {self.server} ({_one_line(error)}); "
                        "check AWS_ENDPOINT_URL, and that the server runs"
                    ) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _explain(self, error: Exception) -> str:
        from botocore.exceptions import NoCredentialsError, PartialCredentialsError  # noqa: PLC0415  # as in `_ask`

        code = _code(error)
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return f"{self} cannot be read without keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if code in KEYS_REFUSED:
            return (
                f"{self.server} does not let these keys read {self} ({code}); check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, and that they may read there"
            )
        if code == "NoSuchBucket":
            return f"{self.server} has no bucket {self.bucket!r}; correct {self}, or AWS_ENDPOINT_URL"
        return f"{self} cannot be read from {self.server} ({_one_line(error)}); correct it, or AWS_ENDPOINT_URL"

    @functools.cached_property
    def _client(self) -> "S3Client":
        """Made once for each folder: what the environment says now.

        Raises:
            ArtefactError: the environment does not make sense.
        """
        import boto3  # noqa: PLC0415  # only who uses S3 loads it
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        own_server = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 1},  # `_ask` repeats, bodies that are cut off too
            # A server of one's own has no host name for each bucket.
            s3={"addressing_style": "path" if own_server else "auto"},
        )
        try:
            return boto3.session.Session().client("s3", config=config)
        except (BotoCoreError, ValueError) as error:
            raise ArtefactError(
                f"{self} cannot be read ({_one_line(error)}); correct the AWS variables, "
                "such as AWS_ENDPOINT_URL=http://host:port"
            ) from error


def _code(error: Exception) -> str | None:
    from botocore.exceptions import ClientError  # noqa: PLC0415  # as in `_ask`

    return error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None


def _is_absence(error: Exception) -> bool:
    """Whether an S3 server says that there is no such object; another server's 404 says nothing of the kind."""
    from botocore.exceptions import ClientError  # noqa: PLC0415  # as in `_ask`

    if not isinstance(error, ClientError):
        return False
    # An answer to HEAD has no body that could say more.
    return _code(error) == "NoSuchKey" or (_code(error) == "404" and error.operation_name == "HeadObject")


def _may_pass(error: Exception) -> bool:
    """Whether the same question may be answered a little later."""
    from botocore import exceptions  # noqa: PLC0415  # as in `_ask`

    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status == 429 or status >= 500 or _code(error) in OVERLOADED
    return isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
