"""The result of each input of `segment`: a row of the summary file, and part of the closing line."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from roadseg_serve.errors import InputError

COLUMNS = ("path", "mask", "state", "images", "width", "height", "road_share", "seconds", "fault")


@dataclass(frozen=True)
class Outcome:
    """The result of one input.

    Attributes:
        source: the input file.
        target: the output file or folder.
        width: of the upright picture, pixels; 0 if it was not read.
        height: of the upright picture, pixels.
        num_images: 1, or the number of frames in a video; 0 if none was segmented.
        road_share: share of all pixels in [0, 1], averaged over the images.
        seconds: processing time; for a picture, without waiting for others.
        fault: what went wrong and what to do; empty if nothing.
        note: what the user should know although nothing went wrong; usually empty.
    """

    source: Path
    target: Path
    width: int = 0
    height: int = 0
    num_images: int = 0
    road_share: float = 0.0
    seconds: float = 0.0
    fault: str = ""
    note: str = ""

    @property
    def state(self) -> str:
        """`failed`, `written`, or `skipped` if the output existed already."""
        if self.fault:
            return "failed"
        return "written" if self.num_images else "skipped"

    def row(self) -> tuple[object, ...]:
        """The values of `COLUMNS`; unknown ones are empty."""
        figures: tuple[object, ...] = (0, "", "", "", "")
        if self.num_images:
            figures = (self.num_images, self.width, self.height, f"{self.road_share:.6f}", f"{self.seconds:.3f}")
        target = "" if self.fault and not self.num_images else self.target
        return (self.source, target, self.state, *figures, self.fault)


def summarise(outcomes: Sequence[Outcome], *, seconds: float, out: Path) -> str:
    """One line: how many files, how fast, how much road, where the output is."""
    num_images = sum(outcome.num_images for outcome in outcomes)
    num_files = sum(outcome.num_images > 0 for outcome in outcomes)
    line = f"{_count(num_images, 'image')} of {_count(num_files, 'file')}"
    if num_images:
        road_share = sum(outcome.road_share * outcome.num_images for outcome in outcomes) / num_images
        line += f" in {timedelta(seconds=round(seconds))} ({num_images / seconds:.1f} images/s)"
        line += f", mean road share {road_share:.3f}"
    for state in ("skipped", "failed"):
        num = sum(outcome.state == state for outcome in outcomes)
        line += f", {num} {state}" if num else ""
    return f"{line}; written to {out}"


@contextmanager
def summary_file(path: Path | None) -> Iterator[Callable[[Outcome], object]]:
    """Open a CSV file and give the function that adds a row at once, in case the run is stopped; None writes nothing.

    Raises:
        InputError: the file cannot be written.
    """
    path = path or Path(os.devnull)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", newline="", encoding="utf-8", errors="surrogateescape", buffering=1)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose another --summary") from error
    with stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        yield lambda outcome: writer.writerow(outcome.row())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
