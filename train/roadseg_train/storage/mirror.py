"""A local copy of a dataset that is on S3, fetched once on each machine that needs it."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from roadseg_train.errors import StorageError
from roadseg_train.storage.folder import Folder
from roadseg_train.storage.path import StoragePath
from roadseg_train.storage.s3 import NUM_CONNECTIONS, S3Folder

CACHE_VARIABLE = "ROADSEG_CACHE"


def mirror(place: StoragePath, suffixes: tuple[str, ...]) -> Path:
    """The files of a place as a local folder: the folder itself, or a copy of what is on S3 at this moment.

    Each object is kept under its ETag and each copy is a folder of links to them that never changes: a changed object
    is fetched again and makes another folder, while who reads the former one is left in peace. What was fetched before
    a fault is not fetched again.

    Args:
        place: a dataset folder.
        suffixes: of the files to copy, in lower case.

    Raises:
        StorageError: there is no such file, it cannot be fetched, or the cache cannot be written.
    """
    if not isinstance(place, S3Folder):
        assert isinstance(place, Folder)
        return place.path
    etags = {name: tag for name, tag in place.objects().items() if PurePosixPath(name).suffix.lower() in suffixes}
    if not etags:
        raise StorageError(f"{place} holds no {', '.join(suffixes)}; correct the address, or upload the dataset there")
    cache = cache_folder()
    # The names of bucket and prefix are in the path for whoever reads it in an error.
    copy = cache / "copies" / place.bucket / f"{place.prefix or 'all'}@{_digest(*map(str, sorted(etags.items())))}"
    try:
        with _locked(cache):  # one process of a machine fetches, the others wait for it
            if not copy.exists():
                objects = {name: cache / "objects" / _digest(str(place / name), etags[name]) for name in etags}
                _fetch(place, etags, objects)
                _link(objects, copy)
    except OSError as error:
        raise StorageError(
            f"{cache} cannot hold a copy of {place} ({error}); make room there, or set {CACHE_VARIABLE} to a folder "
            "that has it"
        ) from error
    return copy


def cache_folder() -> Path:
    """Where copies are kept: `ROADSEG_CACHE`, or the user's cache folder."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE]).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roadseg"


def _fetch(place: S3Folder, etags: dict[str, str], objects: dict[str, Path]) -> None:
    missing = [name for name, path in objects.items() if not path.exists()]

    def fetch(name: str) -> None:
        path = objects[name]
        partial = path.with_suffix(".partial")
        try:
            (place / name).download(partial, etag=etags[name])
        except (FileExistsError, FileNotFoundError) as error:
            raise StorageError(f"{place / name} changed while it was fetched; run the same command again") from error
        partial.replace(path)

    next(iter(objects.values())).parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(NUM_CONNECTIONS) as threads:
        fetched = threads.map(fetch, missing)
        for _ in tqdm(fetched, total=len(missing), unit="file", desc=f"fetching {place}", dynamic_ncols=True):
            pass


def _link(objects: dict[str, Path], copy: Path) -> None:
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, path in objects.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(path, partial / name)
    partial.rename(copy)


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Be the only process that writes to the cache; the lock ends with the process, however that ends."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
