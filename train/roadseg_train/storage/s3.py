"""Places in the buckets of any S3-compatible server.

It is reached as the standard AWS variables say: AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3), AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and the others that boto3 reads. A server that stops answering in the middle of the work is waited
for; one that does not answer at the start is an error at once.
"""

import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
import pyarrow.fs
from boto3.exceptions import Boto3Error, S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  # botocore's name for it
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from roadseg_train.errors import StorageError
from roadseg_train.storage.folder import files_in, temporary_folder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SCHEME = "s3://"
NUM_CONNECTIONS = 16
PATIENCE_S = 300.0  # how long a server that stopped answering is waited for
PAUSE_S = 2.0
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 30

KEYS_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "403")
MAY_PASS = ("RequestTimeout", "SlowDown", "ConditionalRequestConflict")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class S3Folder:
    """A place in a bucket: the object `prefix`, or the objects whose keys begin with `prefix/`."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def __truediv__(self, name: str) -> "S3Folder":
        return S3Folder(self.bucket, f"{self.prefix}/{name}".strip("/"))

    @property
    def uri(self) -> str:
        return str(self)

    def check(self) -> None:
        """Ask once whether the bucket answers to these keys.

        Raises:
            StorageError: it does not.
        """
        self._ask(
            lambda s3: s3.list_objects_v2(Bucket=self.bucket, Prefix=self._inside, MaxKeys=1),
            patience_s=0,
        )

    def names(self) -> list[str]:
        # Not asked with a delimiter: some servers go on to list a folder whose last object was removed.
        return sorted({name.partition("/")[0] for name in self.objects()})

    def objects(self) -> dict[str, str]:
        """Every object in this folder and the folders in it: its name from here on, and its ETag."""

        def fetch(s3: "S3Client") -> dict[str, str]:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._inside)
            items = [item for page in pages for item in page.get("Contents", [])]
            return {i["Key"].removeprefix(self._inside): i["ETag"] for i in items if not i["Key"].endswith("/")}

        return self._ask(fetch)

    def read_text(self) -> str:
        data: bytes = self._ask(lambda s3: s3.get_object(Bucket=self.bucket, Key=self.prefix)["Body"].read())
        return data.decode()

    def write_text(self, text: str) -> None:
        self._ask(lambda s3: s3.put_object(Bucket=self.bucket, Key=self.prefix, Body=text.encode()))

    def create_text(self, text: str) -> None:
        try:
            self._ask(
                lambda s3: s3.put_object(Bucket=self.bucket, Key=self.prefix, Body=text.encode(), IfNoneMatch="*")
            )
        except FileExistsError:
            # A first attempt whose answer was lost has written it: then it is ours.
            if self.read_text() != text:
                raise

    @contextmanager
    def reading(self) -> Iterator[Path]:
        with temporary_folder() as folder:
            path = folder / Path(self.prefix).name
            self.download(path)
            yield path

    @contextmanager
    def writing(self) -> Iterator[Path]:
        with temporary_folder() as folder:
            path = folder / Path(self.prefix).name
            yield path
            self._upload(path)

    def upload(self, local: Path, name: str) -> None:
        for path, relative in files_in(local):
            (self / name / relative)._upload(path)

    def remove(self) -> None:
        for name in self.objects():
            (self / name)._delete()

    def download(self, path: Path, *, etag: str | None = None) -> None:
        """Write this object to a path; with an ETag, only if it has not changed.

        Raises:
            FileNotFoundError: there is no such object.
            FileExistsError: there is another by now.
            OSError: the path cannot be written.
            StorageError: it cannot be fetched.
        """

        def fetch(s3: "S3Client") -> None:
            condition: dict[str, Any] = {"IfMatch": etag} if etag else {}
            body = s3.get_object(Bucket=self.bucket, Key=self.prefix, **condition)["Body"]
            with path.open("wb") as file:
                shutil.copyfileobj(body, file, 1 << 20)

        self._ask(fetch)

    def _delete(self) -> None:
        self._ask(lambda s3: s3.delete_object(Bucket=self.bucket, Key=self.prefix))

    def _upload(self, path: Path) -> None:
        self._ask(lambda s3: s3.upload_file(str(path), self.bucket, self.prefix))

    @property
    def _inside(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _ask(self, operation: Callable[["S3Client"], Answer], patience_s: float = PATIENCE_S) -> Answer:
        """The answer to an operation that may be repeated, waiting for a server that does not answer for a while.

        Raises:
            FileNotFoundError: there is no such object.
            FileExistsError: there is one, and the operation asked for none.
            StorageError: anything else.
        """
        s3, deadline, told = _client(), time.monotonic() + patience_s, False
        while True:
            try:
                return operation(s3)
            except (BotoCoreError, Boto3Error, ClientError) as error:
                cause = error.__context__ if isinstance(error, S3UploadFailedError) else error
                code = _code(cause)
                if code == "NoSuchKey":
                    raise FileNotFoundError(f"there is no {self}") from error
                if code == "PreconditionFailed":
                    raise FileExistsError(f"there is another {self}") from error
                if not _may_pass(cause) or time.monotonic() >= deadline:
                    raise StorageError(self._explain(cause)) from error
                if not told:
                    wait = f"trying again for up to {patience_s / 60:.0f} minutes"
                    print(
                        f"note: {s3.meta.endpoint_url} does not answer for {self}; {wait}", file=sys.stderr, flush=True
                    )
                    told = True
            time.sleep(PAUSE_S)

    def _explain(self, error: BaseException | None) -> str:
        endpoint, code, said = _client().meta.endpoint_url, _code(error), " ".join(str(error).split())
        if code == "NoSuchBucket":
            return f"there is no bucket {self.bucket!r} at {endpoint}; create it, or correct {self}"
        if code == "InvalidBucketName" or isinstance(error, ParamValidationError):
            return f"{self.bucket!r} cannot be the name of a bucket; correct {self}"
        if code in KEYS_REFUSED:
            return (
                f"{endpoint} refuses the keys for {self} ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "and that they may list, read and write there"
            )
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return f"{self} needs keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if _may_pass(error):
            return f"{endpoint} does not answer for {self} ({said}); check AWS_ENDPOINT_URL, and that the server runs"
        return f"{endpoint} refuses {self} ({said}); check the name, and that AWS_ENDPOINT_URL is an S3 server"


class RayStorage(pyarrow.fs.S3FileSystem):  # type: ignore[misc]  # pyarrow ships no types
    """Ray's way to the same S3.

    It travels to other processes without endpoint, keys and patience (pyarrow's own would lose the last): each makes it
    anew from its own environment.
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
                # Longer outages are waited for in `_ask`: boto3 keeps one account of retries for all threads.
                retries={"mode": "standard", "total_max_attempts": 2},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=NUM_CONNECTIONS,
                # Servers in a cluster have no host name for each bucket.
                s3={"addressing_style": "path" if _endpoint() else "auto"},
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"S3 cannot be used ({error}); set AWS_ENDPOINT_URL to http(s)://host:port") from error


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _code(error: BaseException | None) -> str | None:
    return error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None


def _may_pass(error: BaseException | None) -> bool:
    """Whether the same question may be answered a little later."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in {429, 500, 502, 503, 504} or _code(error) in MAY_PASS
    return isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError)
