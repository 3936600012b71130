"""How a recipe scores on unseen drives: leave one drive out, over seeds, for several views of each image.

    .venv/dev/bin/python -m bench.drives --data CamVid --out runs/drives --seeds 3 --views 1 --views 0.5,1,mirror

Existing runs are not repeated, so a table can be interrupted, resumed and extended.
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
from roadseg_train.fit.run import load_run
from roadseg_train.metrics import score
from roadseg_train.network.predict import predict_frames
from roadseg_train.network.views import Views
from roadseg_train.storage.path import storage_path

Case = tuple[str, int]  # split fitted on, seed
MIRROR = ",mirror"


def main(
    data: Annotated[Path, typer.Option(help="CamVid folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs of this recipe.")],
    preset: Annotated[str, typer.Option(help="Preset of roadseg-train.")] = "small",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE: override a field of the preset.")
    ] = None,
    views: Annotated[list[str] | None, typer.Option(help="Scales, and `mirror`: 1, or 0.5,1,mirror.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel runs, of one thread each.")] = 2,
    gpu: Annotated[bool, typer.Option("--gpu", help="Run on one GPU, which also makes the crops.")] = False,
) -> None:
    """Fit without each drive and on `fit`, score on the held-out frames, and print the table."""
    all_views = [views_of(words) for words in views or ["1"]]
    drives = sorted({frame.drive for frame in find_frames(data) if frame.part != "test"})
    cases = [(split, seed) for seed in range(seeds) for split in (*(f"without:{drive}" for drive in drives), "fit")]
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    def measure(case: Case) -> list[float]:
        split, seed = case
        run = out / f"{split.replace(':', '-')}-s{seed}"
        fit_once(data, run, split, seed, preset, settings or [], gpu=gpu)
        return [road_iou(run, each) for each in all_views]

    with ThreadPoolExecutor(jobs) as pool:
        scores = dict(zip(cases, pool.map(measure, cases), strict=True))
    print(table(all_views, scores))


def views_of(words: str) -> Views:
    """Parse views written as one word: scales and `mirror`, separated by commas."""
    scales = words.removesuffix(MIRROR)
    return parse_views(mirror=scales != words, scales=scales)


def fit_once(
    data: Path, run: Path, split: str, seed: int, preset: str, settings: Sequence[str], *, gpu: bool = False
) -> None:
    """Run `roadseg-train fit` in a process of one thread, unless the run is already complete."""
    if (run / SUMMARY).exists() and not Summary.model_validate_json((run / SUMMARY).read_text()).stopped:
        return
    words = ["fit", "--data", data, "--run", run, "--split", split, "--seed", seed, "--preset", preset, "--workers", 0]
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--cpus-per-worker", 1]  # otherwise each run takes all cores, and they wait for each other
    words += ["--gpu", "--loaders", 0] if gpu else []
    program = [sys.executable, "-m", "roadseg_train"]
    with run.with_suffix(".log").open("wb") as log:
        command = [*program, *map(str, words)]
        subprocess.run(command, check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def road_iou(run: Path, views: Views) -> float:
    """Pooled road IoU of a run on the frames held out of its split."""
    loaded = load_run(storage_path(run), views=views)
    counts = predict_frames(loaded.program, loaded.record.heldout_frames(), loaded.record.config)
    return score(list(counts), DEFAULT_THRESHOLD).road_iou


def table(all_views: Sequence[Views], scores: Mapping[Case, Sequence[float]]) -> str:
    """A Markdown table by held-out split and for the mean of the drives: mean and spread over the seeds.

    Args:
        all_views: the views compared.
        scores: by split and seed, road IoU with each of them.
    """
    seeds = sorted({seed for _, seed in scores})
    rows = {
        other_side(split) or split: [scores[split, seed] for seed in seeds]
        for split in dict.fromkeys(s for s, _ in scores)
    }
    by_drive = [values for scored, values in rows.items() if scored.startswith("drive:")]
    rows["mean of the drives"] = [
        [statistics.mean(values) for values in zip(*of_seed, strict=True)] for of_seed in zip(*by_drive, strict=True)
    ]
    lines = [
        f"| road IoU, seeds {' '.join(map(str, seeds))} | {' | '.join(views.text() for views in all_views)} |",
        "|---" * (len(all_views) + 1) + "|",
    ]
    for scored, values in rows.items():
        cells = [summary([of_seed[i] for of_seed in values]) for i in range(len(all_views))]
        lines.append(f"| {scored} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(values: Sequence[float]) -> str:
    """Mean, standard deviation of several, and each value."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread} ({' '.join(f'{value:.4f}' for value in values)})"


if __name__ == "__main__":
    typer.run(main)
