"""The cache of model versions on this machine: folders that several processes fill, use and remove at the same time.

    <ROADSEG_CACHE>/models/<key>.lock    held by the one process that fills or removes the folder
    <ROADSEG_CACHE>/models/<key>/        the version's files
    <ROADSEG_CACHE>/models/<key>/.used   held by each process that uses them; its time says when that began last

The kernel lets go of a lock when its process ends, however that ends. Lock files stay, empty: removing one would let
two processes hold the same lock.
"""

import fcntl
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from roadseg_serve.errors import ArtefactError

CACHE_VARIABLE = "ROADSEG_CACHE"
KEPT = 5  # versions; of the others, those in use are kept too
USED = ".used"


class Hold:
    """A folder of the cache, which is not removed as long as this object lives.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / USED).touch()
        weakref.finalize(self, os.close, _lock(folder / USED, fcntl.LOCK_SH))


def root() -> Path:
    """Where the versions are: in `ROADSEG_CACHE`, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    cache = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roadseg"
    return cache.absolute() / "models"


def hold(key: str, fill: Callable[[Path], None]) -> Hold:
    """The folder of this key, filled, and held; what was not used for the longest time makes room.

    Args:
        key: the folder's name.
        fill: makes the folder's files what they should be, whatever it finds there. It is the only one to do so at
            this time; what it raises is passed on.

    Raises:
        ArtefactError: the cache cannot be written.
    """
    models = root()
    folder = models / key
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / f"{key}.lock", fcntl.LOCK_EX):
            folder.mkdir(exist_ok=True)
            fill(folder)
            held = Hold(folder)
        _make_room(models)
    except OSError as error:
        raise ArtefactError(
            f"{models} cannot hold the model ({error.strerror}); make room there and see that it may be written, "
            f"or set {CACHE_VARIABLE} to another folder"
        ) from error
    return held


def keys(mark: str) -> list[str]:
    """The keys that hold this mark, the last used first."""
    return [folder.name for folder in _by_use(root()) if mark in folder.name]


def _by_use(models: Path) -> list[Path]:
    folders = [path for path in models.iterdir() if path.is_dir()] if models.is_dir() else []
    return sorted(folders, key=_last_used_s, reverse=True)


def _last_used_s(folder: Path) -> float:
    """When it was used last; a folder that was never filled is the oldest."""
    with suppress(FileNotFoundError):
        return (folder / USED).stat().st_mtime
    return 0


def _make_room(models: Path) -> None:
    unless_held = fcntl.LOCK_EX | fcntl.LOCK_NB
    for folder in _by_use(models)[KEPT:]:
        # Another process fills it, uses it, or has just removed it: then it is left alone.
        with (
            suppress(BlockingIOError, FileNotFoundError),
            _locked(models / f"{folder.name}.lock", unless_held),
            _locked(folder / USED, unless_held),
        ):
            shutil.rmtree(folder)


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = _lock(path, how)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, how: int) -> int:
    """An open file that holds the lock until it is closed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
