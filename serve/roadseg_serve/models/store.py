"""Model versions on S3 or any server that speaks its protocol; `artefact` imports this only for `s3://` URIs.

boto3 reads the server and the keys from the standard AWS variables: AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3),
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and so on.
"""

import functools
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from roadseg_serve.errors import ArtefactError, StoreUnreachableError
from roadseg_serve.models.manifest import REMEDY

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SCHEME = "s3://"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3, 10
FIRST_PAUSE_S, MAX_PAUSE_S = 0.25, 4.0  # between attempts; it doubles
# A wrong address should fail soon. Once the server has answered, a download is worth a longer wait.
REQUEST_RETRY_S, DOWNLOAD_RETRY_S = 4.0, 60.0
CHUNK_BYTES = 1 << 16

ACCESS_DENIED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "403")
OVERLOADED = ("SlowDown", "RequestTimeout")

T = TypeVar("T")


@dataclass(frozen=True)
class S3Folder:
    """All objects whose keys begin with `prefix/`; `prefix` has no slash at either end, `str()` gives the URI."""

    bucket: str
    prefix: str

    @classmethod
    def at(cls, uri: str) -> "S3Folder":
        """Parse `s3://bucket/prefix`, and raise ArtefactError if a part is missing; sends no request."""
        bucket, _, prefix = uri.removeprefix(SCHEME).partition("/")
        if not bucket or not prefix.strip("/"):
            raise ArtefactError(f"{uri} names no model version; write {SCHEME}bucket/<store>/<name>/<version>")
        return cls(bucket, prefix.strip("/"))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}"

    @property
    def server(self) -> str:
        """The server's URL."""
        return self._client.meta.endpoint_url

    def read(self, name: str) -> bytes:
        """Read a small object.

        Raises:
            StoreUnreachableError: the server does not answer.
            ArtefactError: the object does not exist, the server refuses the request, or an AWS variable is not valid.
        """
        return self._retry(
            name, lambda s3, key: s3.get_object(Bucket=self.bucket, Key=key)["Body"].read(), REQUEST_RETRY_S
        )

    def size_bytes(self, name: str) -> int:
        """The size of an object; raises as `read`."""
        head = self._retry(name, lambda s3, key: s3.head_object(Bucket=self.bucket, Key=key), REQUEST_RETRY_S)
        return head["ContentLength"]

    def download(self, name: str, path: Path) -> None:
        """Copy an object to a local file, and start over if the connection breaks; raises as `read`."""

        def copy(s3: "S3Client", key: str) -> None:
            body = s3.get_object(Bucket=self.bucket, Key=key)["Body"]
            with path.open("wb") as file:
                shutil.copyfileobj(body, file, CHUNK_BYTES)

        self._retry(name, copy, DOWNLOAD_RETRY_S)

    def _retry(self, name: str, request: Callable[["S3Client", str], T], retry_s: float) -> T:
        """Repeat a request for the object with this name, for up to `retry_s` while the server does not answer.

        botocore's own retries count attempts instead of seconds, and do not cover a body that is cut off.
        """
        s3 = self._client
        deadline_s, pause_s = time.monotonic() + retry_s, FIRST_PAUSE_S
        while True:
            try:
                return request(s3, f"{self.prefix}/{name}")
            except (BotoCoreError, ClientError) as error:
                if _is_missing(error):
                    raise ArtefactError(f"{self}/{name} is missing; {REMEDY}") from error
                if not _is_temporary(error):
                    raise ArtefactError(self._explain(error)) from error
                if time.monotonic() + pause_s > deadline_s:
                    raise StoreUnreachableError(
                        f"the store of {self} does not answer at {self.server} ({_one_line(error)}); "
                        "check AWS_ENDPOINT_URL, and that the server runs"
                    ) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _explain(self, error: Exception) -> str:
        code = _code(error)
        if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
            return f"{self} cannot be read without keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if code in ACCESS_DENIED:
            return (
                f"{self.server} refuses to read {self} with these keys ({code}); check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and their permissions"
            )
        if code == "NoSuchBucket":
            return f"{self.server} has no bucket {self.bucket!r}; correct {self}, or AWS_ENDPOINT_URL"
        return f"{self} cannot be read from {self.server} ({_one_line(error)}); correct it, or AWS_ENDPOINT_URL"

    @functools.cached_property
    def _client(self) -> "S3Client":
        """Created on first use, from the environment at that time."""
        custom_server = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 1},  # see `_retry`
            # A custom server rarely has a host name for each bucket.
            s3={"addressing_style": "path" if custom_server else "auto"},
        )
        try:
            return boto3.session.Session().client("s3", config=config)
        except (BotoCoreError, ValueError) as error:
            raise ArtefactError(
                f"{self} cannot be read ({_one_line(error)}); correct the AWS variables, "
                "such as AWS_ENDPOINT_URL=http://host:port"
            ) from error


def _code(error: Exception) -> str | None:
    return error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None


def _is_missing(error: Exception) -> bool:
    """Whether an S3 server says that the object does not exist; a bare 404 may come from any web server."""
    # The response to HEAD has no body that could carry S3's own code.
    is_head = isinstance(error, ClientError) and error.operation_name == "HeadObject"
    return _code(error) == "NoSuchKey" or (is_head and _code(error) == "404")


def _is_temporary(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status == 429 or status >= 500 or _code(error) in OVERLOADED
    return isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
