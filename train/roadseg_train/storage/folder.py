"""Places on this machine's disks."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roadseg_train.errors import StorageError

PARTIAL = ".partial_"  # begins the names of files that are being written


@dataclass(frozen=True)
class Folder:
    """A place on this machine's disks."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.path / name)

    @property
    def uri(self) -> str:
        return str(self.path.resolve())

    def names(self) -> list[str]:
        with _disk_errors(self.path):
            found = self.path.iterdir() if self.path.exists() else ()
            return sorted(path.name for path in found if not path.name.startswith(PARTIAL))

    def read_text(self) -> str:
        with _disk_errors(self.path):
            return self.path.read_text()

    def write_text(self, text: str) -> None:
        with self.writing() as path:
            path.write_text(text)

    def create_text(self, text: str) -> None:
        with self._partial() as partial:
            partial.write_text(text)
            os.link(partial, self.path)  # unlike a rename, this fails where the name is taken

    @contextmanager
    def reading(self) -> Iterator[Path]:
        yield self.path

    @contextmanager
    def writing(self) -> Iterator[Path]:
        with self._partial() as partial:
            yield partial
            partial.replace(self.path)

    def upload(self, local: Path, name: str) -> None:
        for path, relative in files_in(local):
            with (self / name / relative).writing() as target:
                shutil.copyfile(path, target)

    def remove(self) -> None:
        with _disk_errors(self.path):
            if self.path.exists():
                shutil.rmtree(self.path)

    @contextmanager
    def _partial(self) -> Iterator[Path]:
        """A hidden file beside this one, gone when the block is left."""
        partial = self.path.with_name(f"{PARTIAL}{self.path.name}")
        with _disk_errors(self.path):
            partial.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield partial
            finally:
                partial.unlink(missing_ok=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder on this machine that is gone when the block is left.

    Raises:
        StorageError: the disk is full, or may not be written.
    """
    told = _disk_errors(Path(tempfile.gettempdir()), "set TMPDIR to a folder that has it")
    with told, tempfile.TemporaryDirectory(prefix="roadseg-") as folder:
        yield Path(folder)


def files_in(local: Path) -> Iterator[tuple[Path, str]]:
    """A file, or every file in a folder, and its name from there on."""
    if local.is_file():
        yield local, ""
    for path in sorted(local.rglob("*")):
        if path.is_file():
            yield path, path.relative_to(local).as_posix()


@contextmanager
def _disk_errors(path: Path, otherwise: str = "choose another folder") -> Iterator[None]:
    """Tell what the disk said of a path as an error with its remedy."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        raise StorageError(
            f"{path} cannot be used ({error.strerror}); make room there and see that it may be read and written, or "
            f"{otherwise}; then run the same command again"
        ) from error
