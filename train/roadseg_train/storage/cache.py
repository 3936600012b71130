"""Local copies of the datasets on S3, downloaded once per machine."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from filelock import FileLock
from tqdm import tqdm

from roadseg_train.errors import StorageError
from roadseg_train.storage.local import LocalPath, StoragePath
from roadseg_train.storage.s3 import NUM_CONNECTIONS, S3Path

CACHE_VARIABLE = "ROADSEG_CACHE"


def local_copy(dataset: StoragePath, suffixes: tuple[str, ...]) -> Path:
    """A dataset folder as a local one: itself, or a copy of the objects on S3 with these lower-case suffixes.

    The cache keeps each object under its ETag, and each copy as a folder of hard links that never changes. A changed
    object is downloaded again into a new copy, and readers of the old copy are not disturbed. A download that was
    interrupted continues where it stopped.

    Raises:
        StorageError: no such file exists, the download fails, or the cache cannot be written.
    """
    if not isinstance(dataset, S3Path):
        assert isinstance(dataset, LocalPath)
        return dataset.path
    etags = {name: tag for name, tag in dataset.etags().items() if PurePosixPath(name).suffix.lower() in suffixes}
    if not etags:
        raise StorageError(f"{dataset} has no {', '.join(suffixes)}; correct the address, or upload the dataset there")
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    cache = Path(os.environ.get(CACHE_VARIABLE) or f"{user_cache}/roadseg").expanduser().resolve()
    # Bucket and key are in the path to help people who read it in an error.
    copy = cache / "copies" / dataset.bucket / f"{dataset.key or 'all'}@{_digest(*map(str, sorted(etags.items())))}"
    try:
        (cache / "objects").mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "lock"):  # one process downloads, the others on this machine wait for it
            if not copy.exists():
                objects = {name: cache / "objects" / _digest(str(dataset / name), etags[name]) for name in etags}
                _download(dataset, etags, objects)
                partial = copy.with_name(f"{copy.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                for name, path in objects.items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    os.link(path, partial / name)
                partial.rename(copy)
    except OSError as error:
        raise StorageError(
            f"cannot copy {dataset} to {cache} ({error}); free some space there, or set {CACHE_VARIABLE} to another "
            "folder"
        ) from error
    return copy


def _download(dataset: S3Path, etags: dict[str, str], objects: dict[str, Path]) -> None:
    def download(name: str) -> None:
        partial = objects[name].with_suffix(".partial")
        try:
            (dataset / name).download(partial, etag=etags[name])
        except (FileExistsError, FileNotFoundError) as error:
            raise StorageError(f"{dataset / name} changed during the download; run the same command again") from error
        partial.replace(objects[name])

    missing = [name for name, path in objects.items() if not path.exists()]
    with ThreadPoolExecutor(NUM_CONNECTIONS) as threads:
        done = threads.map(download, missing)
        list(tqdm(done, total=len(missing), unit="file", desc=f"fetching {dataset}", dynamic_ncols=True))


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
