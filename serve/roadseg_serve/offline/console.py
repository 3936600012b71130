"""`segment` in a terminal: progress, errors by file, the closing line, and the summary file."""

import csv
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from roadseg_serve.engines.engine import EngineChoice
from roadseg_serve.errors import FileError, InputError, RequestError
from roadseg_serve.messages import AnswerOptions, Format
from roadseg_serve.offline.inputs import check_not_overwritten, find, plan
from roadseg_serve.offline.segment import LIMITS, Options, Outcome, Segmenter, segment_bytes, segment_files

COLUMNS = ("path", "mask", "state", "images", "width", "height", "road_share", "seconds", "fault")


def segment_paths(
    names: Sequence[str],
    *,
    out: Path,
    wanted: Format | None,
    recursive: bool,
    model: str,
    engine: EngineChoice,
    summary: Path | None,
    options: Options,
    quiet: bool,
) -> bool:
    """Segment all files that `names` stand for, and return whether everything succeeded.

    Raises:
        InputError: the paths do not fit together; nothing was done.
        StartError: the model cannot be read, or the engine cannot run here.
    """
    # Pillow only warns about pictures that are too large for us.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    jobs = plan(find(names, recursive=recursive, out=out), out=out, wanted=wanted)
    check_not_overwritten([job.source for job in jobs], [summary] if summary else [])
    segmenter = Segmenter(model, engine=engine)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    terminal = Console(stderr=True)
    progress = Progress(*columns, console=terminal, disable=quiet or not terminal.is_terminal)
    started_s = time.perf_counter()
    outcomes: list[Outcome] = []
    prefix = "stopped: "
    try:
        with (
            summary_file(summary) as write_row,
            progress,
            closing(segment_files(segmenter, jobs, options, progress)) as results,
        ):
            for outcome in progress.track(results, total=len(jobs), description="files"):
                outcomes.append(outcome)
                write_row(outcome)
                if outcome.note and not quiet:
                    progress.console.out(f"note: {outcome.source}: {outcome.note}", highlight=False)
                if outcome.fault:
                    progress.console.out(f"error: {outcome.source}: {outcome.fault}", highlight=False)
        prefix = ""
    finally:
        if not quiet:
            print(prefix + summarise(outcomes, seconds=time.perf_counter() - started_s, out=out))
    return not any(outcome.fault for outcome in outcomes)


def segment_stdin(*, model: str, engine: EngineChoice, answer_options: AnswerOptions) -> None:
    """Segment the picture on standard input to standard output.

    Raises:
        InputError: the output would go to a terminal.
        FileError: the picture cannot be read, or the result cannot be written.
        StartError: as `segment_paths`.
    """
    if sys.stdout.isatty() and answer_options.format is not Format.JSON:
        raise InputError("will not write a picture to the terminal; redirect it to a file: > mask.png")
    data = sys.stdin.buffer.read(LIMITS.max_upload_bytes + 1)
    try:
        body = segment_bytes(Segmenter(model, engine=engine), data, answer_options).body
    except RequestError as error:
        raise FileError(f"standard input: {error}") from error
    try:
        # Not through sys.stdout, which would try to flush again at exit after a failure.
        with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
            stream.write(body)
    except OSError as error:
        raise FileError(f"standard output: The result cannot be written ({error.strerror}).") from error


def summarise(outcomes: Sequence[Outcome], *, seconds: float, out: Path) -> str:
    """One line: how many files, how fast, how much road, where the output is."""
    num_images = sum(outcome.num_images for outcome in outcomes)
    num_files = sum(outcome.num_images > 0 for outcome in outcomes)
    line = f"{num_images} {'image' if num_images == 1 else 'images'}"
    line += f" of {num_files} {'file' if num_files == 1 else 'files'}"
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
        yield lambda outcome: writer.writerow(_row(outcome))


def _row(outcome: Outcome) -> tuple[object, ...]:
    """The values of `COLUMNS`; unknown ones are empty."""
    figures: tuple[object, ...] = (0, "", "", "", "")
    if outcome.num_images:
        share, seconds = f"{outcome.road_share:.6f}", f"{outcome.seconds:.3f}"
        figures = (outcome.num_images, outcome.width, outcome.height, share, seconds)
    target = "" if outcome.fault and not outcome.num_images else outcome.target
    return (outcome.source, target, outcome.state, *figures, outcome.fault)
