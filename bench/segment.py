"""Compare `roadseg-serve segment` on a folder with a plain loop over the same files.

    .venv/dev/bin/python -m bench.segment --repeats 7

Both call the same functions with the same engine in one process, in turns, on generated pictures.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from bench.load import draw_road
from roadseg_serve.messages import AnswerOptions
from roadseg_serve.offline.inputs import Job, find, plan
from roadseg_serve.offline.segment import Options, Segmenter, segment_bytes, segment_files

SIZES = {"480x360 JPEG": (480, 360, ".jpg"), "1242x375 PNG": (1242, 375, ".png")}


def main(
    model: Annotated[str, typer.Option(help="Model version, as in roadseg-serve.")] = "bundled:small",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; prints their median.")] = 7,
    images: Annotated[int, typer.Option(min=1, help="Pictures per round.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = os.cpu_count() or 1,
    jobs: Annotated[int, typer.Option(min=1, help="Threads that decode and encode.")] = 2,
) -> None:
    """Print images/s of the loop and of `segment`, and their ratio."""
    segmenter = Segmenter(model, num_threads=threads)
    options = Options(num_jobs=jobs)
    print(f"{'picture':>14} {'loop per s':>11} {'segment per s':>14} {'ratio':>6} {'least':>6} {'most':>6}")
    for name, (width, height, suffix) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder) / "pictures", Path(folder) / "masks"
            source.mkdir()
            for i in range(images):
                draw_road(width, height).save(source / f"{i}{suffix}", quality=95)
            todo = plan(find([str(source)], recursive=False, out=out), out=out, wanted=None)
            runs = (partial(loop, segmenter, todo), partial(pipeline, segmenter, todo, options))
            pairs = [[rate_of(run, images) for run in runs] for _ in range(repeats + 1)][1:]  # the first is a warm-up
        print(row(name, pairs), flush=True)


def row(name: str, pairs: Sequence[Sequence[float]]) -> str:
    """A row of medians: the rates of loop and pipeline, and their ratio with its minimum and maximum."""
    looped, piped = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratios = [piped / looped for looped, piped in pairs]
    spread = f"{statistics.median(ratios):6.2f} {min(ratios):6.2f} {max(ratios):6.2f}"
    return f"{name:>14} {looped:11.1f} {piped:14.1f} {spread}"


def rate_of(run: Callable[[], None], images: int) -> float:
    """Images per second."""
    started_s = time.perf_counter()
    run()
    return images / (time.perf_counter() - started_s)


def loop(segmenter: Segmenter, jobs: Sequence[Job]) -> None:
    """Process one file after another."""
    for job in jobs:
        job.target.parent.mkdir(exist_ok=True)
        job.target.write_bytes(segment_bytes(segmenter, job.source.read_bytes(), AnswerOptions(job.format)).body)


def pipeline(segmenter: Segmenter, jobs: Sequence[Job], options: Options) -> None:
    """As the command does it."""
    for outcome in segment_files(segmenter, jobs, options, Progress(disable=True)):
        if outcome.fault:
            raise SystemExit(outcome.fault)


if __name__ == "__main__":
    typer.run(main)
