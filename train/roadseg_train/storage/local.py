"""Paths on this machine's disks."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roadseg_train.errors import StorageError
from roadseg_train.storage.base import StoragePath

PARTIAL = ".partial_"  # prefix of files that are still being written


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
