"""`segment` at a terminal: what is shown while it works, what goes wrong by name, and what came of it."""

import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from PIL import Image
from tqdm import tqdm

from roadseg_serve.engines.engine import EngineName
from roadseg_serve.errors import FileError, InputError, RequestError
from roadseg_serve.messages import AnswerOptions, Format
from roadseg_serve.offline.inputs import check_inputs_are_kept, find, plan
from roadseg_serve.offline.outcome import Tally, summary_file
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
    """Segment what the names mean, and tell of it on the terminal.

    Args:
        names: see `inputs.find`.
        out: see `inputs.plan`.
        wanted: see `inputs.plan`.
        recursive: see `inputs.find`.
        model: which model version; see `artefact.resolve`.
        engine: what computes; see `create_engine`.
        summary: where the table of all inputs goes, if it is wanted.
        options: how to segment.
        quiet: tell what goes wrong only.

    Returns:
        Whether all is well.

    Raises:
        InputError: the paths make no sense together; nothing was done.
        StartError: the model cannot be read, or the engine cannot run here.
    """
    # Pillow only warns of pictures that are too large for us.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    jobs = plan(find(names, recursive=recursive, out=out), out=out, wanted=wanted)
    check_inputs_are_kept([job.source for job in jobs], [summary] if summary else [])
    segmenter = load(model, engine)
    started_s = time.perf_counter()
    tally = Tally()
    ended = "stopped: "
    try:
        with (
            summary_file(summary) as write_row,
            tqdm(total=len(jobs), unit=" images", disable=True if quiet else None) as bar,  # None: in terminals only
            closing(segment_files(segmenter, jobs, options, bar)) as outcomes,
        ):
            for outcome in outcomes:
                tally.add(outcome)
                write_row(outcome)
                if outcome.note and not quiet:
                    bar.write(f"note: {outcome.source}: {outcome.note}", file=sys.stderr)
                if outcome.fault:
                    bar.write(f"error: {outcome.source}: {outcome.fault}", file=sys.stderr)
        ended = ""
    finally:
        if not quiet:
            print(ended + tally.line(seconds=time.perf_counter() - started_s, out=out))
    return tally.num_failed == 0


def segment_stdin(*, model: str, engine: EngineName | Literal["auto"], wish: AnswerOptions) -> None:
    """Segment the picture on standard input to standard output.

    Raises:
        InputError: the answer would go to a terminal.
        RequestError: it cannot be read.
        FileError: the answer cannot be written.
        StartError: the model cannot be read, or the engine cannot run here.
    """
    if sys.stdout.isatty() and wish.format is not Format.JSON:
        raise InputError("the answer is no text for a terminal; write it to a file: > mask.png")
    data = sys.stdin.buffer.read(LIMITS.max_upload_bytes + 1)
    try:
        body = segment_bytes(load(model, engine), data, wish).body
    except RequestError as error:
        raise FileError(f"standard input: {error}") from error
    try:
        # Not by sys.stdout, which would try once more at the end what failed here.
        with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
            stream.write(body)
    except OSError as error:
        raise FileError(f"standard output: The answer cannot be written ({error.strerror}).") from error


def load(model: str, engine: EngineName | Literal["auto"]) -> Segmenter:
    """The model, with a thread for each CPU that this process may use."""
    return Segmenter(model, engine=engine, num_threads=len(os.sched_getaffinity(0)))
