"""Places: a folder or `s3://bucket/prefix`, spoken to in one way."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from roadseg_train.errors import StorageError
from roadseg_train.storage.folder import Folder
from roadseg_train.storage.s3 import SCHEME, RayStorage, S3Folder


class StoragePath(Protocol):
    """A file or folder, wherever it is; `str()` of it is what the user wrote."""

    @property
    def uri(self) -> str:
        """The same place from any process: an absolute path, or s3://bucket/prefix."""

    def __truediv__(self, name: str) -> "StoragePath":
        """The place of this name in this folder."""

    def names(self) -> list[str]:
        """Names of the files and folders in this folder, sorted; none where there is no folder."""

    def read_text(self) -> str:
        """The text of this file.

        Raises:
            FileNotFoundError: there is none.
        """

    def write_text(self, text: str) -> None:
        """Write this file, its folder too; it is seen whole or not at all."""

    def create_text(self, text: str) -> None:
        """Write this file as `write_text` does, only where there is none.

        Raises:
            FileExistsError: there is one, which is left as it was.
        """

    def reading(self) -> AbstractContextManager[Path]:
        """This file as one on this machine, while the block lasts.

        Raises:
            FileNotFoundError: there is none.
        """

    def writing(self) -> AbstractContextManager[Path]:
        """A path on this machine to write to; once the block is left the file is in its place, whole or not at all."""

    def upload(self, local: Path, name: str) -> None:
        """Copy a local file, or a folder with all that is in it, into this folder, over what has that name."""

    def remove(self) -> None:
        """Remove this folder and all that is in it, where there is one."""


def storage_path(uri: str | Path) -> StoragePath:
    """The place that a user names: a folder or `s3://bucket/prefix`.

    Raises:
        StorageError: it is neither.
    """
    text = str(uri)
    if not text.startswith(SCHEME):
        if "://" in text:
            raise StorageError(f"{text} is neither a folder nor {SCHEME}bucket/name; write it in one of these forms")
        return Folder(Path(text))
    bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise StorageError(f"{text} names no bucket; write {SCHEME}bucket/name")
    return S3Folder(bucket, prefix.strip("/"))


def reach(uri: str | Path) -> StoragePath:
    """The place that a user names, asked once, so that a wrong address or key is told at the start.

    Raises:
        StorageError: it is not a place, or does not answer.
    """
    place = storage_path(uri)
    if isinstance(place, S3Folder):
        place.check()
    return place


def for_ray(place: StoragePath) -> tuple[RayStorage | None, str]:
    """The file system that Ray shall use for a place (None: the machine's own), and the path there."""
    on_s3 = isinstance(place, S3Folder)
    return (RayStorage() if on_s3 else None), place.uri.removeprefix(SCHEME)
