"""Where a user's path leads: a folder on disk, or `s3://bucket/key`."""

from pathlib import Path

from roadseg_train.errors import StorageError
from roadseg_train.storage.local import LocalPath, StoragePath
from roadseg_train.storage.s3 import SCHEME, RayStorage, S3Path

__all__ = ["StoragePath", "for_ray", "reach", "storage_path"]


def storage_path(uri: str | Path) -> StoragePath:
    """The path that a user names: a folder or `s3://bucket/key`.

    Raises:
        StorageError: it is neither.
    """
    text = str(uri)
    if not text.startswith(SCHEME):
        if "://" in text:
            raise StorageError(f"{text} is neither a folder nor {SCHEME}bucket/name; use one of these forms")
        return LocalPath(Path(text))
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise StorageError(f"{text} names no bucket; use {SCHEME}bucket/name")
    return S3Path(bucket, key.strip("/"))


def reach(uri: str | Path) -> StoragePath:
    """`storage_path`, after one request that proves that the bucket exists and the keys are right.

    Raises:
        StorageError: the path is malformed, or S3 does not answer or refuses.
    """
    path = storage_path(uri)
    if isinstance(path, S3Path):
        path.check()
    return path


def for_ray(path: StoragePath) -> tuple[RayStorage | None, str]:
    """The file system that Ray needs for a path (None for disks), and the path in it."""
    return (RayStorage() if isinstance(path, S3Path) else None), path.uri.removeprefix(SCHEME)
