"""What Ray costs in training: images/s of the same loop in this process, on one Ray Train worker and on two.

Runs the command line in turns, on generated images; the machine should be otherwise idle. The speed is the median over
each run's learning curve, without the warm-up and without checkpoints.
Example: .venv/dev/bin/python bench/train.py --repeats 3 --steps 60
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

NUM_IMAGES = 40
NUM_WARM_UP_STEPS = 10
CASES = {
    "without Ray": ("--workers", "0"),
    "Ray, 1 worker": ("--workers", "1"),
    "Ray, 2 workers": ("--workers", "2"),
}


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Number of turns; the median is printed.")] = 3,
    steps: Annotated[int, typer.Option(min=30, help="Steps of one run.")] = 60,
    preset: Annotated[str, typer.Option(help="Preset of roadseg-train.")] = "small",
    threads: Annotated[int, typer.Option(min=1, help="Threads of each worker.")] = 1,
) -> None:
    """Print images/s by case, their ratio to the loop without Ray, and the share of time spent waiting for data."""
    speeds: dict[str, list[float]] = {case: [] for case in CASES}
    waits: dict[str, list[float]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as folder:
        data = draw_images(Path(folder) / "data")
        for turn in range(repeats):
            for case, options in CASES.items():
                run = Path(folder) / f"{turn} {case}"
                fit(data, run, "--preset", preset, "--steps", steps, "--cpus-per-worker", threads, *options)
                speeds[case].append(read_curve(run, "train/images_per_s"))
                waits[case].append(read_curve(run, "train/data_wait_share"))
    reference = statistics.median(speeds[next(iter(CASES))])
    print(f"preset {preset}, {threads} thread(s) per worker, {repeats} turns of {steps} steps")
    print(f"{'':>15} {'images/s':>9} {'least':>7} {'most':>7} {'ratio':>6} {'waiting for data':>17}")
    for case, measured in speeds.items():
        median = statistics.median(measured)
        spread = f"{min(measured):7.2f} {max(measured):7.2f}"
        print(f"{case:>15} {median:9.2f} {spread} {median / reference:6.3f} {statistics.median(waits[case]):17.1%}")


def fit(data: Path, run: Path, *options: str | int) -> None:
    """Run `roadseg-train fit`."""
    program = (sys.executable, "-m", "roadseg_train", "fit")
    # Nothing is held out and scored, and every step costs the same.
    words = ("--split", "train", "--set", "coarse_share=0", "--data", data, "--run", run, *options)
    subprocess.run([*program, *map(str, words)], check=True, capture_output=True)


def read_curve(run: Path, tag: str) -> float:
    """The median of a learning curve after the warm-up."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return statistics.median(float(event.value) for event in events.Scalars(tag) if event.step > NUM_WARM_UP_STEPS)


def draw_images(root: Path) -> Path:
    """Write a CamVid folder of noise; the content does not affect the speed."""
    rng = np.random.default_rng(0)
    for part in ("train", "trainannot"):
        (root / part).mkdir(parents=True)
    for i in range(NUM_IMAGES):
        picture, label = rng.integers(0, 256, (360, 480, 3), np.uint8), rng.integers(0, 12, (360, 480), np.uint8)
        Image.fromarray(picture).save(root / "train" / f"0001TP_{i:05d}.png")
        Image.fromarray(label).save(root / "trainannot" / f"0001TP_{i:05d}.png")
    return root


if __name__ == "__main__":
    typer.run(main)
