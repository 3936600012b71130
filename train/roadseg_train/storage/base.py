"""The interface that a path on disk and a path in a bucket share."""

import shutil
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self


class StoragePath(ABC):
    """A file or folder, on disk or on S3; `str()` returns what the user wrote."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """The name of this path in any process: an absolute path, or s3://bucket/key."""

    @abstractmethod
    def __truediv__(self, name: str) -> Self:
        """The path of this name in this folder."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of the files and folders in this folder, sorted; empty if the folder does not exist."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Path]:
        """This file as a local file, until the block ends.

        Raises:
            FileNotFoundError: the file does not exist.
        """

    @abstractmethod
    def writing(self) -> AbstractContextManager[Path]:
        """A local path to write to; when the block ends, the complete file replaces this one atomically."""

    @abstractmethod
    def create_text(self, text: str) -> None:
        """Write this file atomically, unless it exists.

        Raises:
            FileExistsError: the file exists; it is unchanged.
        """

    @abstractmethod
    def remove(self) -> None:
        """Remove this folder and everything in it, if it exists."""

    def read_text(self) -> str:
        """The text of this file.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        with self.reading() as path:
            return path.read_text()

    def write_text(self, text: str) -> None:
        """Write this file and the folders above it, atomically."""
        with self.writing() as path:
            path.write_text(text)

    def upload(self, local: Path, name: str) -> None:
        """Copy a local file, or a folder and everything in it, to this name in this folder, replacing files."""
        for source in sorted(path for path in (local, *local.rglob("*")) if path.is_file()):
            with (self / name / source.relative_to(local).as_posix()).writing() as target:
                shutil.copyfile(source, target)
