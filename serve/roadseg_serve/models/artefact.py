"""Reads published model versions: find the folder, fetch its files, verify them, and only then return them.

This shares no code with the writer.
"""

import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from roadseg_serve.errors import ArtefactError, StoreUnreachableError
from roadseg_serve.models import cache
from roadseg_serve.models.manifest import MANIFEST, REMEDY, File, Manifest

if TYPE_CHECKING:
    from roadseg_serve.models.store import S3Folder

log = logging.getLogger(__name__)

PARTIAL = ".partial"  # suffix of a file that is being fetched

# The versions that ship with this package, by the name in `bundled:<name>`.
BUNDLED = {"small": "road-small/3", "full": "road-full/6"}
BUNDLED_FOLDER = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class Artefact:
    """A verified model version on this machine: the folder of its files, and its manifest."""

    folder: Path
    manifest: Manifest

    def path_of(self, name: str) -> Path:
        """The path of one of its files; raises ArtefactError if the manifest does not list it."""
        _select(self.manifest, [name], self.folder)
        return self.folder / name


def resolve(uri: str) -> "Path | S3Folder":
    """Find the absolute folder, or the one on S3, that a model URI names; it may not exist.

    A URI is `bundled:<name>`, a folder path, `file:///folder` or `s3://bucket/prefix`; others raise ArtefactError.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon:
        return Path(uri).expanduser().absolute()
    if scheme == "bundled":
        if rest not in BUNDLED:
            raise ArtefactError(f"no bundled model {rest!r}; choose one of: {', '.join(BUNDLED)}")
        return BUNDLED_FOLDER / BUNDLED[rest]
    if scheme == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ArtefactError(f"{uri} names no folder on this machine; write file:///absolute/path")
        return Path(unquote(parts.path))
    if uri.startswith("s3://"):
        from roadseg_serve.models.store import S3Folder  # noqa: PLC0415  # boto3 takes a while to import

        return S3Folder.at(uri)
    raise ArtefactError(
        f"cannot read a model from {uri!r}; give bundled:small, a folder, file:///absolute/path, or s3://bucket/path"
    )


def check(place: "Path | S3Folder", files: Collection[str] | None = None) -> Manifest:
    """Check that a model version can be served, without fetching its files.

    In a folder, every listed file is verified. On S3, only the sizes are checked; if the store does not answer, an
    intact copy in this machine's cache is enough. Arguments and errors are those of `read`.
    """
    if isinstance(place, Path):
        manifest = _read_folder(place, None).manifest
        _select(manifest, files, place)
        return manifest
    try:
        manifest = _parse(place.read(MANIFEST), place)
        _select(manifest, files, place)
        for name, file in manifest.files.items():
            _refuse(f"{place}/{name}", _size_fault(place.size_bytes(name), file))
    except StoreUnreachableError as error:
        return _read_cached(place, files, error).manifest
    return manifest


def read(place: "Path | S3Folder", files: Collection[str] | None = None) -> Artefact:
    """Fetch a model version if needed, and verify its manifest and the size and sha256 of its files.

    Files on S3 are copied to the cache once. Their manifest is fetched every time, because its sha256 is part of the
    cache key. If the store does not answer, the version last used from exactly this address is read from the cache,
    with a warning in the log. Only `files` are fetched and verified; None means all.

    Raises:
        StoreUnreachableError: the store does not answer, and the cache has no intact copy.
        ArtefactError: something is missing or differs; the message says what, and what to do.
    """
    if isinstance(place, Path):
        return _read_folder(place, files)
    try:
        text = place.read(MANIFEST)
    except StoreUnreachableError as error:
        return _read_cached(place, files, error)
    manifest = _parse(text, place)
    wanted = _select(manifest, files, place)

    def fetch(folder: Path) -> None:
        for leftover in folder.glob(f"*{PARTIAL}"):  # of a process that was killed
            leftover.unlink()
        (folder / MANIFEST).write_bytes(text)
        for name, file in wanted.items():
            _fetch(place, name, file, folder)

    key = f"{manifest.name}-{manifest.version}{_address_hash(place)}{_sha256(text)}"
    return Artefact(cache.fill(key, fetch), manifest)


def _read_folder(folder: Path, files: Collection[str] | None) -> Artefact:
    path = folder / MANIFEST
    _refuse(path, "" if path.is_file() else "is missing, which is written last")
    manifest = _parse(path.read_bytes(), folder)
    for name, file in _select(manifest, files, folder).items():
        _refuse(folder / name, _fault(folder / name, file))
    return Artefact(folder, manifest)


def _read_cached(place: "S3Folder", files: Collection[str] | None, error: StoreUnreachableError) -> Artefact:
    """The version last used from this address, as a newer one cannot be known; StoreUnreachableError if not intact."""
    address_hash = _address_hash(place)
    key = next(iter(cache.keys(address_hash)), None)
    if key is None:
        raise error

    def verify(folder: Path) -> None:
        path = folder / MANIFEST
        if not path.is_file() or _sha256(path.read_bytes()) != key.partition(address_hash)[2]:
            raise ArtefactError(f"{path} is missing or damaged")
        _read_folder(folder, files)

    try:
        folder = cache.fill(key, verify)
    except ArtefactError as fault:
        raise StoreUnreachableError(f"{error}; and the cache has no intact copy ({fault})") from error
    manifest = _parse((folder / MANIFEST).read_bytes(), folder)
    log.warning("%s; serving %s %s from the cache instead", error, manifest.name, manifest.version)
    return Artefact(folder, manifest)


def _address_hash(place: "S3Folder") -> str:
    """The middle of a cache key, which says where the version came from; its manifest's sha256 follows."""
    return f"@{_sha256(f'{place.server} {place}'.encode())[:16]}."


def _fetch(place: "S3Folder", name: str, file: File, folder: Path) -> None:
    """Copy a file to the folder unless it is there; it gets its name once it is verified."""
    path, partial = folder / name, folder / f"{name}{PARTIAL}"
    fault = _fault(path, file)
    if not fault:
        return
    if path.exists():
        log.warning("%s %s; fetching it again", path, fault)
    place.download(name, partial)
    try:
        _refuse(f"{place}/{name}", _fault(partial, file))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _parse(text: bytes, place: "Path | S3Folder") -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ArtefactError(
            f"{place}/{MANIFEST} breaks the artefact contract ({faults}); "
            "publish the model again with a matching roadseg-train"
        ) from error


def _select(manifest: Manifest, names: Collection[str] | None, place: "Path | S3Folder") -> dict[str, File]:
    """The listed files that are needed, by name."""
    listed: dict[str, File] = dict(manifest.files.items())
    if names is None:
        return listed
    if unlisted := sorted(set(names) - listed.keys()):
        remedy = "choose another engine, or publish a version with it: roadseg-train publish --int8"
        raise ArtefactError(f"{place} has no {', '.join(unlisted)}; {remedy}")
    return {name: listed[name] for name in names}


def _fault(path: Path, file: File) -> str:
    """What is wrong with a file, as the rest of a sentence; empty if nothing is."""
    if not path.is_file():
        return "is missing"
    if fault := _size_fault(path.stat().st_size, file):
        return fault
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return "" if sha256 == file.sha256 else "is damaged: its sha256 differs from the manifest"


def _refuse(path: object, fault: str) -> None:
    """Raise ArtefactError if there is a fault."""
    if fault:
        raise ArtefactError(f"{path} {fault}; {REMEDY}")


def _size_fault(size_bytes: int, file: File) -> str:
    return "" if size_bytes == file.size_bytes else f"has {size_bytes} bytes, but the manifest says {file.size_bytes}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
