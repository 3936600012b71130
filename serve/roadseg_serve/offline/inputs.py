"""What `segment` reads, and where each mask goes; all of it is settled before any work begins."""

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
    """A file to segment.

    Attributes:
        path: of the file.
        relative: where it lies below the folder, or the pattern's fixed part, that it was found by.
    """

    path: Path
    relative: Path

    @property
    def is_video(self) -> bool:
        """By its name."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Job:
    """A file to segment, and where the answer goes.

    Attributes:
        source: the file.
        is_video: and no picture.
        format: of the answer.
        target: the file to write; for a video in another format than overlay, the folder of its frames.
    """

    source: Path
    is_video: bool
    format: Format
    target: Path


def find(names: Sequence[str], *, recursive: bool, out: Path) -> list[Input]:
    """Find the files that the names mean, each once, in the order of the names and sorted within each.

    Files that are named, or match a pattern, are taken whatever they are. Folders give what a picture or a video is by
    its suffix; hidden files and what lies below `out` do not count.

    Args:
        names: files, folders and patterns as of `glob`, `**` included.
        recursive: whether folders give what is in their subfolders too.
        out: where masks go.

    Raises:
        InputError: a name means nothing.
    """
    found: dict[Path, Input] = {}
    for name in names:
        try:
            inputs = list(_found_by(name, recursive=recursive, out=out))
        except OSError as error:
            raise InputError(f"cannot look into {error.filename} ({error.strerror})") from error
        if not inputs:
            raise InputError(_nothing(name, recursive=recursive))
        for each in inputs:
            found.setdefault(each.path.resolve(), each)
    return list(found.values())


def plan(inputs: Sequence[Input], *, out: Path, wanted: Format | None) -> list[Job]:
    """Say where each answer goes: to the same place below `out`, under the input's name with the format's suffix.

    Args:
        inputs: what is to be segmented.
        out: the folder of all answers.
        wanted: the format; None makes masks as PNG of pictures, and an overlay of videos.

    Raises:
        InputError: two answers would have one name, or one would take the place of an input.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder with --out")
    jobs: dict[Path, Job] = {}
    for each in inputs:
        default = Format.OVERLAY if each.is_video else Format.PNG
        answer_format = wanted or default
        suffix = SUFFIXES[answer_format]
        if each.is_video:
            suffix = ".mp4" if answer_format is Format.OVERLAY else ""
        target = out / each.relative.with_suffix(suffix)
        if target in jobs:
            raise _same_target(jobs[target].source, each.path, target)
        jobs[target] = Job(each.path, each.is_video, answer_format, target)
    for job in jobs.values():
        for parent in job.target.parents:
            if parent in jobs:  # the frames of a video, into a folder of pictures
                raise _same_target(jobs[parent].source, job.source, parent)
    check_inputs_are_kept([each.path for each in inputs], list(jobs))
    return list(jobs.values())


def check_inputs_are_kept(sources: Sequence[Path], targets: Sequence[Path]) -> None:
    """Make sure that no input is written over, under whatever name.

    Raises:
        InputError: one would be.
    """
    by_identity = {(found.st_dev, found.st_ino): path for path in sources for found in (path.stat(),)}
    for target in targets:
        if target.exists():
            found = target.stat()
            source = by_identity.get((found.st_dev, found.st_ino))
            if source is not None:
                raise InputError(
                    f"{target} would take the place of {source}, which is to be read; choose another --out"
                )


def _found_by(name: str, *, recursive: bool, out: Path) -> Iterator[Input]:
    path = Path(name).expanduser()
    if path.is_dir():
        yield from _in_folder(path, path, recursive=recursive, out=out)
    elif path.exists():
        yield Input(path, Path(path.name))
    elif glob.has_magic(name):
        parts = path.parts
        base = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
        # As shells do, it leaves out hidden files, which Path.glob does not.
        for match in sorted(map(Path, glob.glob(str(path), recursive=True))):  # noqa: PTH207
            if match.is_dir():
                # What `**` finds has each file by itself.
                if "**" not in parts:
                    yield from _in_folder(match, base, recursive=recursive, out=out)
            elif not match.resolve().is_relative_to(out.resolve()):
                yield Input(match, match.relative_to(base))


def _in_folder(folder: Path, base: Path, *, recursive: bool, out: Path) -> Iterator[Input]:
    """Pictures and videos in a folder, sorted."""
    suffixes = VIDEO_SUFFIXES | {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    out = out.resolve()
    if folder.resolve() == out:
        raise InputError(f"{folder} is read, so that nothing can be written to it; choose another --out")

    def stop(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=stop):
        kept = sorted(each for each in folders if not each.startswith(".") and (Path(parent) / each).resolve() != out)
        folders[:] = kept if recursive else []  # where os.walk goes next
        for file in sorted(files):
            path = Path(parent) / file
            if path.suffix.lower() in suffixes and not file.startswith("."):
                yield Input(path, path.relative_to(base))


def _nothing(name: str, *, recursive: bool) -> str:
    if name == "-":
        return "- stands for one picture on standard input, and goes alone"
    if Path(name).expanduser().is_dir():
        hint = "" if recursive else "; --recursive looks into its subfolders too"
        return f"{name} has no picture and no video{hint}"
    if glob.has_magic(name):
        return f"nothing matches {name}"
    return f"{name} does not exist"


def _same_target(first: Path, second: Path, target: Path) -> InputError:
    return InputError(
        f"{first} and {second} would both be written to {target}; give the folder above both with --recursive, or a "
        "pattern in quotes, to keep their folders apart, or segment them in two runs with an --out each"
    )
