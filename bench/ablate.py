"""What each part of the recipe is worth: one change at a time from a base, on held-out blocks, over seeds.

    .venv/dev/bin/python -m bench.ablate --data CamVid --out runs/ablation --group loss --seeds 3

Every run is a `roadseg-train fit` with `--set`. Existing runs are not repeated, so a table can be interrupted, resumed
and extended. The base is the preset `small` at half its resolution with a short schedule, to be cheap.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from bench.drives import fit_once
from roadseg_train.config import small
from roadseg_train.fit.progress import SUMMARY, Summary

PRESET = small()
HALVED = ("short_side_px", "crop_height_px", "crop_width_px")
BASE = (*(f"{field}={getattr(PRESET, field) // 2}" for field in HALVED), "coarse_share=0")

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "loss": {  # without the class head, which would add its own loss
        "IoU": ("iou_weight=1", "bce_weight=0", "class_weight=0"),
        "BCE": ("iou_weight=0", "bce_weight=1", "class_weight=0"),
        "0.75 IoU + 0.25 BCE": ("iou_weight=0.75", "bce_weight=0.25", "class_weight=0"),
    },
    "recipe": {
        "the recipe": (),
        "without moving the frame": ("scale_range=[1,1]", "stretch=1", "rotation_deg=0"),
        "without recolouring": ("colour_jitter=0", "gamma_range=[1,1]", "hue_jitter=0"),
        "without degrading": ("degrade_probability=0",),
        "without averaging the weights": ("ema_decay=0",),
        "without the class head": ("class_weight=0",),
        "2,000 steps": ("num_steps=2000",),
    },
}


def main(
    data: Annotated[Path, typer.Option(help="CamVid folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the table.")],
    group: Annotated[str, typer.Option(help=f"One of: {', '.join(GROUPS)}.")],
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    split: Annotated[str, typer.Option(help="What to fit on: fit, or without:DRIVE.")] = "fit",
    jobs: Annotated[int, typer.Option(min=1, help="Parallel runs, of one thread each.")] = 2,
) -> None:
    """Run a group of ablations and print its table."""
    variants = GROUPS[group]
    out.mkdir(parents=True, exist_ok=True)

    def measure(variant: str, seed: int) -> float:
        name = f"{group}-{'-'.join(variant.split())}-{split.replace(':', '-')}-{steps}-s{seed}"
        settings = (*BASE, f"num_steps={steps}", *variants[variant])
        return heldout_iou(data, out / name, split, seed, settings)

    # Seed by seed, so that an interrupted table is still fair.
    cases = [(variant, seed) for seed in range(seeds) for variant in variants]
    with ThreadPoolExecutor(jobs) as pool:
        scores = dict(zip(cases, pool.map(lambda case: measure(*case), cases), strict=True))
    by_variant = {variant: [scores[variant, seed] for seed in range(seeds)] for variant in variants}
    (out / f"{group}.json").write_text(json.dumps(by_variant, indent=2) + "\n")
    print(table(group, by_variant))


def table(group: str, scores: Mapping[str, Sequence[float]]) -> str:
    """A Markdown table of mean and spread by variant, over the same number of seeds."""
    seeds = len(next(iter(scores.values())))
    lines = [f"| {group} | held-out road IoU, mean of {seeds} | spread (sd) | each |", "|---|---|---|---|"]
    for variant, values in scores.items():
        spread = statistics.stdev(values) if seeds > 1 else 0.0
        each = " ".join(f"{value:.4f}" for value in values)
        lines.append(f"| {variant} | {statistics.mean(values):.4f} | {spread:.4f} | {each} |")
    return "\n".join(lines)


def heldout_iou(data: Path, run: Path, split: str, seed: int, settings: Sequence[str]) -> float:
    """Fit, unless the run is complete, and read the score of the last checkpoint."""
    fit_once(data, run, split, seed, PRESET.preset, settings)
    return Summary.model_validate_json((run / SUMMARY).read_text()).last_heldout["road_iou"]


if __name__ == "__main__":
    typer.run(main)
