"""What became of each input of `segment`: a row of the summary file, and a part of the summary line."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from roadseg_serve.errors import InputError

COLUMNS = ("path", "mask", "state", "images", "width", "height", "road_share", "seconds", "fault")


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        source: the file.
        target: where its answer is, if there is one.
        width: of the upright picture, pixels; 0 where it was not read.
        height: of the upright picture, pixels.
        num_images: 1, or the frames of a video; 0 where none was segmented.
        road_share: of all pixels, the mean over the images, in [0, 1].
        seconds: that it took; of a picture without the time that it waited for others.
        fault: what went wrong and what to do; empty where all is well.
        note: what is no fault but should be known; mostly empty.
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
        """In one word; an answer that was there already is skipped."""
        if self.fault:
            return "failed"
        return "written" if self.num_images else "skipped"

    def row(self) -> tuple[str, ...]:
        """Of the summary file; what is not known is empty."""
        known = self.num_images > 0
        return (
            str(self.source),
            str(self.target) if known or not self.fault else "",
            self.state,
            str(self.num_images),
            str(self.width) if known else "",
            str(self.height) if known else "",
            f"{self.road_share:.6f}" if known else "",
            f"{self.seconds:.3f}" if known else "",
            self.fault,
        )


@dataclass
class Tally:
    """The sum of all outcomes so far."""

    num_files: int = 0
    num_images: int = 0
    num_skipped: int = 0
    num_failed: int = 0
    _road: float = field(default=0.0, repr=False)

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.num_files += outcome.num_images > 0
        self.num_images += outcome.num_images
        self.num_skipped += outcome.state == "skipped"
        self.num_failed += outcome.state == "failed"
        self._road += outcome.road_share * outcome.num_images

    def line(self, *, seconds: float, out: Path) -> str:
        """For a person: how many, how fast, how much road, where."""
        parts = [f"{_count(self.num_images, 'image')} of {_count(self.num_files, 'file')}"]
        if self.num_images:
            took = str(timedelta(seconds=round(seconds)))
            parts[0] += f" in {took} ({self.num_images / seconds:.1f} images/s)"
            parts.append(f"mean road share {self._road / self.num_images:.3f}")
        if self.num_skipped:
            parts.append(f"{self.num_skipped} skipped")
        if self.num_failed:
            parts.append(f"{self.num_failed} failed")
        return f"{', '.join(parts)}; written to {out}"


class Rows(Protocol):
    """Takes the row of an outcome."""

    def __call__(self, outcome: Outcome) -> None:
        """Write it."""


@contextmanager
def summary_file(path: Path | None) -> Iterator[Rows]:
    """Write outcomes as CSV while they come, so that what is done is told whatever ends the run; None writes nowhere.

    Raises:
        InputError: there can be no such file.
    """
    if path is None:
        yield lambda _outcome: None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", newline="", encoding="utf-8", errors="surrogateescape", buffering=1)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose another --summary") from error
    with stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)

        def write(outcome: Outcome) -> None:
            writer.writerow(outcome.row())

        yield write


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
