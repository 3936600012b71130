"""`segment` in a terminal: progress, errors by file, and the closing line."""

import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from roadseg_serve.engines.engine import EngineName
from roadseg_serve.errors import FileError, InputError, RequestError
from roadseg_serve.messages import AnswerOptions, Format
from roadseg_serve.offline.inputs import check_not_overwritten, find, plan
from roadseg_serve.offline.outcome import Outcome, summarise, summary_file
from roadseg_serve.offline.segment import LIMITS, Options, Segmenter, segment_bytes, segment_files


def segment_paths(
    names: Sequence[str],
    *,
    out: Path,
    wanted: Format | None,
    recursive: bool,
    model: str,
    engine: EngineName | Literal["auto"],
    summary: Path | None,
    options: Options,
    quiet: bool,
) -> bool:
    """Segment all files that `names` stand for; see `inputs.find` and `inputs.plan`.

    Returns:
        Whether everything succeeded.

    Raises:
        InputError: the paths do not fit together; nothing was done.
        StartError: the model cannot be read, or the engine cannot run here.
    """
    # Pillow only warns about pictures that are too large for us.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    jobs = plan(find(names, recursive=recursive, out=out), out=out, wanted=wanted)
    check_not_overwritten([job.source for job in jobs], [summary] if summary else [])
    segmenter = Segmenter(model, engine=engine)
    started_s = time.perf_counter()
    outcomes: list[Outcome] = []
    prefix = "stopped: "
    try:
        with (
            summary_file(summary) as write_row,
            progress_bar(quiet=quiet) as progress,
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


def segment_stdin(*, model: str, engine: EngineName | Literal["auto"], answer_options: AnswerOptions) -> None:
    """Segment the picture on standard input to standard output.

    Raises:
        InputError: the output would go to a terminal.
        RequestError: the picture cannot be read.
        FileError: the output cannot be written.
        StartError: the model cannot be read, or the engine cannot run here.
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


def progress_bar(*, quiet: bool) -> Progress:
    """A progress bar on standard error, if that is a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal)
