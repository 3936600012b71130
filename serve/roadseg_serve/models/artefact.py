"""The reader of published model versions: find the place, bring and verify the files, only then hand them out.

The writer shares no code with this module.
"""

import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from roadseg_serve.errors import ArtefactError, StoreUnreachableError
from roadseg_serve.models import cache
from roadseg_serve.models.manifest import MANIFEST, File, Manifest
from roadseg_serve.models.store import SCHEME, S3Folder

log = logging.getLogger(__name__)

PARTIAL = ".partial"  # ends the name of a file that is being fetched
REMEDY = "copy the version again from where it is whole, or publish the model again as another version"

# What `bundled:<key>` means: the versions that ship with this package.
BUNDLED = {"small": "road-small/3", "full": "road-full/6"}
BUNDLED_FOLDER = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class Artefact:
    """A model version on this machine, verified; its files stay as long as this object lives.

    Attributes:
        folder: where its files lie.
        manifest: what it says about itself.
        hold: keeps the folder where that is in the cache.
    """

    folder: Path
    manifest: Manifest
    hold: cache.Hold | None = field(default=None, repr=False)

    def path_of(self, name: str) -> Path:
        """One of its files.

        Raises:
            ArtefactError: the version has no such file.
        """
        _select(self.manifest, [name], self.folder)
        return self.folder / name


def resolve(uri: str) -> Path | S3Folder:
    """Find the place that a model URI names.

    Args:
        uri: `bundled:<key>`, a folder path, `file://` and an absolute folder path, or `s3://bucket/prefix`.

    Returns:
        The absolute folder, or the one on S3; `check` and `read` say whether it holds a model.

    Raises:
        ArtefactError: unknown key or kind of URI.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon:
        return Path(uri).expanduser().absolute()
    if scheme == "bundled":
        if rest not in BUNDLED:
            raise ArtefactError(f"no bundled model {rest!r}; there is: {', '.join(BUNDLED)}")
        return BUNDLED_FOLDER / BUNDLED[rest]
    if scheme == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ArtefactError(f"{uri} names no folder of this machine; write file:///absolute/path")
        return Path(unquote(parts.path))
    if uri.startswith(SCHEME):
        return S3Folder.at(uri)
    raise ArtefactError(
        f"cannot read a model from {uri!r}; give bundled:small, a folder, file:///absolute/path, or {SCHEME}bucket/path"
    )


def check(place: Path | S3Folder, files: Collection[str] | None = None) -> Manifest:
    """Make sure that a model version can be served, without fetching it.

    In a folder every listed file is verified. On S3 every listed object is asked for its size; where the store does not
    answer, a copy in this machine's cache will do.

    Args:
        place: as `resolve` gives it.
        files: those that will be loaded; None is all of them.

    Raises:
        ArtefactError: as `read`.
    """
    if isinstance(place, Path):
        manifest = read(place).manifest
        _select(manifest, files, place)
        return manifest
    try:
        manifest = _parse(_fetch_manifest(place), place)
        _select(manifest, files, place)
        for name, file in manifest.files.items():
            _check_object(place, name, file)
    except StoreUnreachableError as error:
        return _read_cached(place, files, error).manifest
    return manifest


def read(place: Path | S3Folder, files: Collection[str] | None = None) -> Artefact:
    """Verify a model version: manifest, contract, size and sha256 of its files. Nothing is loaded before.

    What is on S3 is brought into the cache first, file by file, unless it is there. The manifest is always asked for,
    as its sha256 is a part of the cached version's name; only where the store does not answer, the version that was
    used last under exactly this address is taken from the cache, and the log says so.

    Args:
        place: as `resolve` gives it.
        files: those that are needed; None is all of them. No other is fetched or verified.

    Raises:
        StoreUnreachableError: the store does not answer, and the cache has no whole copy.
        ArtefactError: something is missing or differs; the text says what, and what to do.
    """
    if isinstance(place, Path):
        return _read_folder(place, files)
    try:
        text = _fetch_manifest(place)
    except StoreUnreachableError as error:
        return _read_cached(place, files, error)
    manifest = _parse(text, place)
    wanted = _select(manifest, files, place)

    def fill(folder: Path) -> None:
        for rest in folder.glob(f"*{PARTIAL}"):  # of a process that was killed
            rest.unlink()
        # Nothing is forced onto the disk: what a power failure spoils is noticed, as files are verified at every use.
        partial = folder / f"{MANIFEST}{PARTIAL}"
        partial.write_bytes(text)
        partial.replace(folder / MANIFEST)
        for name, file in wanted.items():
            _fetch(place, name, file, folder)

    hold = cache.hold(f"{manifest.name}-{manifest.version}{_mark(place)}{_sha256(text)}", fill)
    return Artefact(folder=hold.folder, manifest=manifest, hold=hold)


def _read_folder(folder: Path, files: Collection[str] | None) -> Artefact:
    path = folder / MANIFEST
    if not path.is_file():
        raise _incomplete(folder)
    manifest = _parse(path.read_bytes(), folder)
    for name, file in _select(manifest, files, folder).items():
        _verify(folder / name, file)
    return Artefact(folder=folder, manifest=manifest)


def _read_cached(place: S3Folder, files: Collection[str] | None, error: StoreUnreachableError) -> Artefact:
    """The version that was used last under this address, as nothing newer can be known.

    Raises:
        StoreUnreachableError: `error`, as there is no whole copy.
    """
    mark = _mark(place)
    key = next(iter(cache.keys(mark)), None)
    if key is None:
        raise error

    def verify(folder: Path) -> None:
        path = folder / MANIFEST
        if not path.is_file() or _sha256(path.read_bytes()) != key.partition(mark)[2]:
            raise ArtefactError(f"{path} is missing or damaged")
        _read_folder(folder, files)

    try:
        hold = cache.hold(key, verify)
    except ArtefactError as fault:
        raise StoreUnreachableError(f"{error}; and the cache has no whole copy ({fault})") from error
    manifest = _parse((hold.folder / MANIFEST).read_bytes(), hold.folder)
    log.warning("%s; serving %s %s from the cache, where it is whole", error, manifest.name, manifest.version)
    return Artefact(folder=hold.folder, manifest=manifest, hold=hold)


def _mark(place: S3Folder) -> str:
    """The part of a cached version's name that says where it came from; its manifest's sha256 follows."""
    return f"@{_sha256(f'{place.server} {place}'.encode())[:16]}."


def _fetch_manifest(place: S3Folder) -> bytes:
    try:
        return place.read(MANIFEST)
    except FileNotFoundError as error:
        raise _incomplete(place) from error


def _fetch(place: S3Folder, name: str, file: File, folder: Path) -> None:
    """Bring a file into the folder, where it is not; it is seen there once it is verified."""
    path, partial = folder / name, folder / f"{name}{PARTIAL}"
    if path.is_file():
        fault = _fault(path, file)
        if fault is None:
            return
        log.warning("%s %s; fetching it again", path, fault)
    try:
        place.download(name, partial)
    except FileNotFoundError as error:
        raise _missing(f"{place}/{name}") from error
    fault = _fault(partial, file)
    if fault is not None:
        partial.unlink()
        raise ArtefactError(f"{place}/{name} {fault}; {REMEDY}")
    partial.replace(path)


def _check_object(place: S3Folder, name: str, file: File) -> None:
    try:
        size_bytes = place.size_bytes(name)
    except FileNotFoundError as error:
        raise _missing(f"{place}/{name}") from error
    if size_bytes != file.size_bytes:
        raise ArtefactError(f"{place}/{name} {_wrong_size(size_bytes, file)}; {REMEDY}")


def _parse(text: bytes, place: Path | S3Folder) -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ArtefactError(
            f"{place}/{MANIFEST} does not keep the artefact contract ({faults}); "
            "publish the model again with a matching roadseg-train"
        ) from error


def _select(manifest: Manifest, names: Collection[str] | None, place: Path | S3Folder) -> dict[str, File]:
    """Those of the listed files that are needed, by name."""
    listed: dict[str, File] = dict(manifest.files.items())
    if names is None:
        return listed
    unlisted = sorted(set(names) - listed.keys())
    if unlisted:
        remedy = "choose another engine, or publish a version with it: roadseg-train publish --int8"
        raise ArtefactError(f"{place} has no {', '.join(unlisted)}; {remedy}")
    return {name: listed[name] for name in names}


def _verify(path: Path, file: File) -> None:
    if not path.is_file():
        raise _missing(path)
    fault = _fault(path, file)
    if fault is not None:
        raise ArtefactError(f"{path} {fault}; {REMEDY}")


def _fault(path: Path, file: File) -> str | None:
    """What is wrong with a file that is there, in the middle of a sentence; None where it is as it should be."""
    size_bytes = path.stat().st_size
    if size_bytes != file.size_bytes:
        return _wrong_size(size_bytes, file)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if sha256 == file.sha256 else "is damaged: its sha256 is not the manifest's"


def _wrong_size(size_bytes: int, file: File) -> str:
    return f"has {size_bytes} bytes, the manifest says {file.size_bytes}"


def _missing(path: Path | str) -> ArtefactError:
    return ArtefactError(f"{path} is missing though the manifest lists it; {REMEDY}")


def _incomplete(place: Path | S3Folder) -> ArtefactError:
    return ArtefactError(
        f"no complete model in {place}: {MANIFEST} is missing, and it is written last; "
        "give the folder of one published version (<store>/<name>/<version>)"
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
