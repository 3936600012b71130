"""The cache of model versions on this machine, which several processes fill, use and clean up at the same time.

    <ROADSEG_CACHE>/models/<key>/        the version's files
    <ROADSEG_CACHE>/models/<key>/.used   empty; its time says when the version was last used
    <ROADSEG_CACHE>/models/<key>.lock    empty; locked by the one process that fills or removes the folder

The kernel releases a lock when its process ends, however it ends. Lock files are never removed: two processes could
then hold the same lock.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from roadseg_serve.errors import ArtefactError

CACHE_VARIABLE = "ROADSEG_CACHE"
MAX_VERSIONS = 5
MIN_AGE_S = 3600.0  # a version used more recently stays: somebody may be loading it
USED = ".used"


def root() -> Path:
    """The folder of all versions: in `ROADSEG_CACHE`, or in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    cache = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roadseg"
    return cache.absolute() / "models"


def fill(key: str, fetch: Callable[[Path], None]) -> Path:
    """Fill the folder of this key, and remove the least recently used versions beyond `MAX_VERSIONS`.

    `fetch` brings the folder up to date, whatever it finds there, while no other process fills it. Raises ArtefactError
    if the cache cannot be written.
    """
    models = root()
    folder = models / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            folder.mkdir(exist_ok=True)  # removed by another process before this one had the lock
            fetch(folder)
            (folder / USED).touch()
        for old in _by_use(models)[MAX_VERSIONS:]:
            with suppress(BlockingIOError), _lock(old, fcntl.LOCK_NB):  # skipped if another process fills it
                if time.time() - _last_used_s(old) > MIN_AGE_S:
                    shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ArtefactError(
            f"{models} cannot hold the model ({error.strerror}); free some space there and check its permissions, "
            f"or set {CACHE_VARIABLE} to another folder"
        ) from error
    return folder


def keys(part: str) -> list[str]:
    """All keys that contain `part`, the most recently used first."""
    return [folder.name for folder in _by_use(root()) if part in folder.name]


def _by_use(models: Path) -> list[Path]:
    folders = [path for path in models.iterdir() if path.is_dir()] if models.is_dir() else []
    return sorted(folders, key=_last_used_s, reverse=True)


def _last_used_s(folder: Path) -> float:
    """Seconds since 1970; 0 for a folder that was never completely filled."""
    with suppress(FileNotFoundError):
        return (folder / USED).stat().st_mtime
    return 0


@contextmanager
def _lock(folder: Path, flags: int = 0) -> Iterator[None]:
    """Hold the folder's lock. The standard library does this in two lines, so no package is needed."""
    with folder.with_name(f"{folder.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
        yield
