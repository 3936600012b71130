"""How a recipe does on a drive never seen: leave one drive out, over seeds, for several ways to look at a picture.

    .venv/dev/bin/python -m bench.drives --data CamVid --out runs/drives --seeds 3 --views 1 --views 0.5,1,mirror

Runs that are there already are not repeated, so that a table can be cut short, continued and extended.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import torch
import typer

from roadseg_train.cli import parse_views
from roadseg_train.config import DEFAULT_THRESHOLD
from roadseg_train.data.dataset import find_frames
from roadseg_train.data.split import other_side
from roadseg_train.fit.progress import SUMMARY, Summary
from roadseg_train.fit.run import load_runs
from roadseg_train.metrics import score
from roadseg_train.network.predict import predict_frames
from roadseg_train.network.views import Views
from roadseg_train.storage.path import storage_path

Case = tuple[str, int]  # split fitted on, seed
MIRROR = ",mirror"


def main(
    data: Annotated[Path, typer.Option(help="CamVid folder.")],
    out: Annotated[Path, typer.Option(help="Where the runs go; one folder for one recipe.")],
    preset: Annotated[str, typer.Option(help="Preset of roadseg-train.")] = "small",
    settings: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE of the preset, replaced.")] = None,
    views: Annotated[list[str] | None, typer.Option(help="Scales, and `mirror`: 1, or 0.5,1,mirror.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, of one thread each.")] = 2,
    gpu: Annotated[bool, typer.Option("--gpu", help="All on one GPU, which makes their crops too.")] = False,
) -> None:
    """Fit without each drive and on `fit`, score on what was left out, and print the table."""
    looks = [views_of(words) for words in views or ["1"]]
    drives = sorted({frame.drive for frame in find_frames(data) if frame.part != "test"})
    cases = [(split, seed) for seed in range(seeds) for split in (*(f"without:{drive}" for drive in drives), "fit")]
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    def measure(case: Case) -> list[float]:
        split, seed = case
        run = out / f"{split.replace(':', '-')}-s{seed}"
        fit_once(data, run, split, seed, preset, settings or [], gpu=gpu)
        return [road_iou(run, look) for look in looks]

    with ThreadPoolExecutor(jobs) as pool:
        scores = dict(zip(cases, pool.map(measure, cases), strict=True))
    print(table(looks, scores))


def views_of(words: str) -> Views:
    """Views written as one word: scales and `mirror`, divided by commas."""
    scales = words.removesuffix(MIRROR)
    return parse_views(mirror=scales != words, scales=scales)


def fit_once(
    data: Path, run: Path, split: str, seed: int, preset: str, settings: Sequence[str], *, gpu: bool = False
) -> None:
    """Fit as a user would, in a process of one thread, to the end of the schedule, unless that was done already."""
    if (run / SUMMARY).exists() and not Summary.model_validate_json((run / SUMMARY).read_text()).stopped:
        return
    words = ["fit", "--data", data, "--run", run, "--split", split, "--seed", seed, "--preset", preset, "--workers", 0]
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--cpus-per-worker", 1]  # else each run takes all cores, and they wait for one another's threads
    words += ["--gpu", "--loaders", 0] if gpu else []
    program = [sys.executable, "-m", "roadseg_train"]
    with run.with_suffix(".log").open("wb") as log:
        command = [*program, *map(str, words)]
        subprocess.run(command, check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def road_iou(run: Path, look: Views) -> float:
    """Pooled road IoU of a run on the other side of the split that it was fitted on."""
    loaded = load_runs([storage_path(run)], views=look)
    scored = predict_frames(loaded.program, loaded.record.heldout_frames(), loaded.record.config)
    return score([frame.counts for frame in scored], DEFAULT_THRESHOLD).road_iou


def table(looks: Sequence[Views], scores: Mapping[Case, Sequence[float]]) -> str:
    """By what was scored, with a line for the mean of the drives: mean and spread over the seeds, in Markdown.

    Args:
        looks: the ways to look at a picture.
        scores: by split and seed, road IoU of each way to look.
    """
    seeds = sorted({seed for _, seed in scores})
    rows = {
        other_side(split) or split: [scores[split, seed] for seed in seeds]
        for split in dict.fromkeys(s for s, _ in scores)
    }
    by_drive = [values for scored, values in rows.items() if scored.startswith("drive:")]
    rows["mean of the drives"] = [
        [statistics.mean(look) for look in zip(*of_seed, strict=True)] for of_seed in zip(*by_drive, strict=True)
    ]
    lines = [
        f"| road IoU, seeds {' '.join(map(str, seeds))} | {' | '.join(look.text() for look in looks)} |",
        "|---" * (len(looks) + 1) + "|",
    ]
    for scored, values in rows.items():
        cells = [summary([of_seed[i] for of_seed in values]) for i in range(len(looks))]
        lines.append(f"| {scored} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(values: Sequence[float]) -> str:
    """Mean, standard deviation where there are several, and each."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread} ({' '.join(f'{value:.4f}' for value in values)})"


if __name__ == "__main__":
    typer.run(main)
