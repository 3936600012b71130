"""Paths in the buckets of any S3-compatible server.

boto3 reads the standard AWS variables, such as AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID. pyarrow.fs cannot create an
object only if it is new; obstore has no error codes to explain, ignores AWS_CA_BUNDLE and panics on a bad endpoint.
"""

import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import pyarrow.fs
from botocore import exceptions
from botocore.config import Config

from roadseg_train.errors import StorageError
from roadseg_train.storage.local import StoragePath, temporary_folder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SCHEME = "s3://"
NUM_CONNECTIONS = 16
MAX_OUTAGE_S = 300.0
PAUSE_S = 2.0

WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "403")
TEMPORARY_CODES = ("RequestTimeout", "SlowDown", "ConditionalRequestConflict")
TEMPORARY_STATUSES = (429, 500, 502, 503, 504)

Result = TypeVar("Result")


@dataclass(frozen=True)
class S3Path(StoragePath):
    """The object `key` in a bucket, or the folder of all objects below `key/`.

    Every method waits up to five minutes for a server that stops responding.
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, name: str) -> "S3Path":
        return S3Path(self.bucket, str(PurePosixPath(self.key) / name))

    @property
    def uri(self) -> str:
        return str(self)

    def check(self) -> None:
        """List the folder once, without waiting; StorageError if the server refuses or does not respond."""
        self._call(lambda s3: s3.list_objects_v2(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1), max_outage_s=0)

    def names(self) -> list[str]:
        # No `Delimiter`: some servers still list a folder after its last object is gone.
        return sorted({name.partition("/")[0] for name in self.etags()})

    def etags(self) -> dict[str, str]:
        """The ETag of each object in this folder and its subfolders, by name relative to this folder."""

        def list_all(s3: "S3Client") -> dict[str, str]:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._prefix)
            items = [item for page in pages for item in page.get("Contents", [])]
            return {i["Key"].removeprefix(self._prefix): i["ETag"] for i in items if not i["Key"].endswith("/")}

        return self._call(list_all)

    @contextmanager
    def reading(self) -> Iterator[Path]:
        with temporary_folder() as folder:
            path = folder / Path(self.key).name
            self.download(path)
            yield path

    @contextmanager
    def writing(self) -> Iterator[Path]:
        def upload(s3: "S3Client") -> None:
            with path.open("rb") as file:
                s3.upload_fileobj(file, self.bucket, self.key)

        with temporary_folder() as folder:
            path = folder / Path(self.key).name
            yield path
            self._call(upload)

    def create_text(self, text: str) -> None:
        body = text.encode()
        try:
            self._call(lambda s3: s3.put_object(Bucket=self.bucket, Key=self.key, Body=body, IfNoneMatch="*"))
        except FileExistsError:
            # If the response to a first attempt was lost, the object is ours.
            if self.read_text() != text:
                raise

    def remove(self) -> None:
        for name in self.etags():
            (self / name)._delete()

    def download(self, path: Path, *, etag: str | None = None) -> None:
        """Write this object to a local file; with an ETag, only if the object still has it.

        Raises:
            FileNotFoundError: the object does not exist.
            FileExistsError: the object has changed.
            OSError: the local file cannot be written.
            StorageError: the server refuses, or did not respond for five minutes.
        """

        def fetch(s3: "S3Client") -> None:
            condition: dict[str, Any] = {"IfMatch": etag} if etag else {}
            body = s3.get_object(Bucket=self.bucket, Key=self.key, **condition)["Body"]
            with path.open("wb") as file:
                shutil.copyfileobj(body, file, 1 << 20)

        self._call(fetch)

    def _delete(self) -> None:
        self._call(lambda s3: s3.delete_object(Bucket=self.bucket, Key=self.key))

    @property
    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    def _call(self, operation: Callable[["S3Client"], Result], max_outage_s: float = MAX_OUTAGE_S) -> Result:
        """Run an operation that is safe to repeat, and repeat it while the server is down."""
        s3, deadline, warned = _client(), time.monotonic() + max_outage_s, False
        while True:
            try:
                return operation(s3)
            except (exceptions.BotoCoreError, exceptions.ClientError) as error:
                code = _code(error)
                if code == "NoSuchKey":
                    raise FileNotFoundError(f"{self} does not exist") from error
                if code == "PreconditionFailed":
                    raise FileExistsError(f"{self} exists or has changed") from error
                if not _is_temporary(error) or time.monotonic() >= deadline:
                    where, detail = f"{self} at {s3.meta.endpoint_url}", " ".join(str(error).split())
                    raise StorageError(f"cannot use {where} ({detail}); {_remedy(error)}") from error
                if not warned:
                    wait = f"trying again for up to {max_outage_s / 60:.0f} minutes"
                    print(f"note: {s3.meta.endpoint_url} does not answer for {self}; {wait}", file=sys.stderr)
                    warned = True
            time.sleep(PAUSE_S)


class RayStorage(pyarrow.fs.S3FileSystem):  # type: ignore[misc]  # pyarrow ships no types
    """The same S3 for Ray.

    Each process that unpickles it takes endpoint and keys from its own environment, and sets the retries again, which
    pyarrow's own class would lose.
    """

    def __init__(self) -> None:
        # The pauses double up to 20 s: fifteen attempts take about three minutes.
        super().__init__(
            endpoint_override=_endpoint(),
            tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE"),
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=15),
        )

    def __reduce__(self) -> tuple[type["RayStorage"], tuple[()]]:
        return RayStorage, ()


@functools.cache
def _client() -> "S3Client":
    try:
        return boto3.client(
            "s3",
            config=Config(
                # `_call` waits for longer outages, because boto3 limits the retries of all threads together.
                retries={"mode": "standard", "total_max_attempts": 2},
                connect_timeout=5,
                read_timeout=30,
                max_pool_connections=NUM_CONNECTIONS,
                # In a cluster, buckets have no host names of their own.
                s3={"addressing_style": "path" if _endpoint() else "auto"},
            ),
        )
    except (exceptions.BotoCoreError, ValueError) as error:
        raise StorageError(f"cannot use S3 ({error}); set AWS_ENDPOINT_URL to http(s)://host:port") from error


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _code(error: Exception) -> str | None:
    return error.response.get("Error", {}).get("Code") if isinstance(error, exceptions.ClientError) else None


def _remedy(error: Exception) -> str:
    code = _code(error)
    if code == "NoSuchBucket":
        return "create the bucket, or correct its name"
    if code == "InvalidBucketName" or isinstance(error, exceptions.ParamValidationError):
        return "correct the name of the bucket"
    if code in WRONG_KEYS or isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may list, read and write there"
    if _is_temporary(error):
        return "check AWS_ENDPOINT_URL, and that the server runs"
    return "check the name, and that AWS_ENDPOINT_URL is an S3 server"


def _is_temporary(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in TEMPORARY_STATUSES or _code(error) in TEMPORARY_CODES
    return isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError)
