"""What `segment` reads, and where each result goes; all of this is settled before any work starts."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from roadseg_serve.errors import InputError
from roadseg_serve.messages import Format
from roadseg_serve.stages.preprocess import FORMATS

VIDEO_SUFFIXES = frozenset((
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".webm", ".wmv",
))  # fmt: skip

SUFFIXES = {
    Format.JPEG: ".jpg",
    Format.PNG: ".png",
    Format.PROBABILITY: ".png",
    Format.OVERLAY: ".jpg",
    Format.JSON: ".json",
}


@dataclass(frozen=True)
class Input:
    """A file to segment; `relative` is its path below the folder or the fixed part of the pattern that found it."""

    path: Path
    relative: Path

    @property
    def is_video(self) -> bool:
        """Judged by its suffix."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Job:
    """A file to segment, and where the result goes."""

    source: Path
    is_video: bool
    format: Format
    target: Path  # the output file; for a video in a format other than overlay, the folder of its frames


def find(names: Sequence[str], *, recursive: bool, out: Path) -> list[Input]:
    """Find the files that the names stand for, each once, in the order of the names and sorted within each.

    Files that are named or match a pattern are taken whatever their suffix. Folders give all files with the suffix of
    a picture or video, except hidden files and those below `out`. Names may be `glob` patterns including `**`; one that
    stands for nothing raises InputError.
    """
    found: dict[Path, Input] = {}
    for name in names:
        try:
            inputs = list(_found_by(name, recursive=recursive, out=out))
        except OSError as error:
            raise InputError(f"cannot read {error.filename} ({error.strerror})") from error
        if not inputs:
            raise InputError(_explain_nothing(name, recursive=recursive))
        for each in inputs:
            found.setdefault(each.path.resolve(), each)
    return list(found.values())


def plan(inputs: Sequence[Input], *, out: Path, wanted: Format | None) -> list[Job]:
    """Decide where each result goes: to the same relative path below `out`, with the suffix of the format.

    The format `wanted=None` means PNG masks for pictures, and overlays for videos. Raises InputError if two results
    would have the same path, or one would overwrite an input.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder with --out")
    jobs = []
    for each in inputs:
        answer_format = wanted or (Format.OVERLAY if each.is_video else Format.PNG)
        suffix = SUFFIXES[answer_format]
        if each.is_video:
            suffix = ".mp4" if answer_format is Format.OVERLAY else ""
        jobs.append(Job(each.path, each.is_video, answer_format, out / each.relative.with_suffix(suffix)))
    by_target: dict[Path, Job] = {}
    for job in jobs:
        by_target.setdefault(job.target, job)
    for job in jobs:
        for path in (job.target, *job.target.parents):  # the folder of a video's frames may be one of pictures too
            other = by_target.get(path, job)
            if other is not job:
                raise InputError(
                    f"{other.source} and {job.source} would both be written to {path}; give their common folder with "
                    "--recursive, or a pattern in quotes, to keep their folders apart, or run segment twice with "
                    "different --out"
                )
    check_not_overwritten([each.path for each in inputs], list(by_target))
    return jobs


def check_not_overwritten(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    """Raise InputError if a target is one of the sources, even by another name."""
    by_identity = {_identity(path): path for path in sources}
    for target in targets:
        if target.exists() and (source := by_identity.get(_identity(target))):
            raise InputError(f"{target} would overwrite the input {source}; choose another --out")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _found_by(name: str, *, recursive: bool, out: Path) -> Iterator[Input]:
    path = Path(name).expanduser()
    if path.is_dir():
        yield from _in_folder(path, path, recursive=recursive, out=out)
    elif path.exists():
        yield Input(path, Path(path.name))
    elif glob.has_magic(name):
        parts = path.parts
        base = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
        # Unlike Path.glob, this leaves out hidden files, as shells do.
        for match in sorted(map(Path, glob.glob(str(path), recursive=True))):  # noqa: PTH207
            if match.is_dir():
                if "**" not in parts:  # which matches the files in it too
                    yield from _in_folder(match, base, recursive=recursive, out=out)
            elif not match.resolve().is_relative_to(out.resolve()):
                yield Input(match, match.relative_to(base))


def _in_folder(folder: Path, base: Path, *, recursive: bool, out: Path) -> Iterator[Input]:
    """Pictures and videos in a folder, sorted."""
    suffixes = VIDEO_SUFFIXES | {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    out = out.resolve()
    if folder.resolve() == out:
        raise InputError(f"{folder} is both an input and the output folder; choose another --out")

    def stop(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=stop):
        kept = sorted(each for each in folders if not each.startswith(".") and (Path(parent) / each).resolve() != out)
        folders[:] = kept if recursive else []  # where os.walk goes next
        for file in sorted(files):
            path = Path(parent) / file
            if path.suffix.lower() in suffixes and not file.startswith("."):
                yield Input(path, path.relative_to(base))


def _explain_nothing(name: str, *, recursive: bool) -> str:
    if name == "-":
        return "- means one picture on standard input, and cannot be combined with other paths"
    if Path(name).expanduser().is_dir():
        hint = "" if recursive else "; add --recursive to look into its subfolders"
        return f"{name} has no pictures or videos{hint}"
    if glob.has_magic(name):
        return f"nothing matches {name}"
    return f"{name} does not exist"
