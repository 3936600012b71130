"""The interface of all paths, and the paths on this machine's disks."""

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from roadseg_train.errors import StorageError

PARTIAL = ".partial_"  # prefix of files that are still being written


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
        """The text of this file; raises what `reading` raises."""
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


@dataclass(frozen=True)
class LocalPath(StoragePath):
    """A file or folder on disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "LocalPath":
        return LocalPath(self.path / name)

    @property
    def uri(self) -> str:
        return str(self.path.resolve())

    def names(self) -> list[str]:
        with _explain_errors(self.path):
            found = self.path.iterdir() if self.path.exists() else ()
            return sorted(path.name for path in found if not path.name.startswith(PARTIAL))

    @contextmanager
    def reading(self) -> Iterator[Path]:
        with _explain_errors(self.path):
            yield self.path

    @contextmanager
    def writing(self) -> Iterator[Path]:
        with self._partial() as partial:
            yield partial
            partial.replace(self.path)

    def create_text(self, text: str) -> None:
        with self._partial() as partial:
            partial.write_text(text)
            os.link(partial, self.path)  # unlike a rename, a link fails if the name is taken

    def remove(self) -> None:
        with _explain_errors(self.path):
            if self.path.exists():
                shutil.rmtree(self.path)

    @contextmanager
    def _partial(self) -> Iterator[Path]:
        """A hidden file beside this one, removed when the block ends."""
        partial = self.path.with_name(f"{PARTIAL}{self.path.name}")
        with _explain_errors(self.path):
            partial.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield partial
            finally:
                partial.unlink(missing_ok=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A local folder that is removed when the block ends.

    Raises:
        StorageError: the disk is full or read-only.
    """
    explained = _explain_errors(Path(tempfile.gettempdir()), "set TMPDIR to another folder")
    with explained, tempfile.TemporaryDirectory(prefix="roadseg-") as folder:
        yield Path(folder)


@contextmanager
def _explain_errors(path: Path, alternative: str = "choose another folder") -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        raise StorageError(
            f"cannot use {path} ({error.strerror}); free some space and check its permissions, or {alternative}; "
            "then run the same command again"
        ) from error
