"""Compare all engines that this machine can run: milliseconds per image by batch size and threads.

    .venv/dev/bin/python bench/engines.py --model models/road-small/1 --threads 1 --threads 2

Also prints how much their results differ and the size of the serving environment. All settings run in turns, so that
other load affects them equally: trust the ratios rather than the times. Needs the development environment.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import torch
import typer

from roadseg_serve.engines.engine import Engine, EngineName, create_engine, program_of
from roadseg_serve.messages import UInt8Array
from roadseg_serve.models import artefact
from roadseg_serve.models.artefact import Artefact

# Threads, batch size, engine.
Setting = tuple[int, int, str]

BATCHES = (1, 8)
SERVE_ENVIRONMENT = Path(__file__).parents[1] / ".venv" / "serve"
SERVE_LIMIT_GB = 1.0


def main(
    model: Annotated[str, typer.Option(help="Model version, as in roadseg-serve.")] = "bundled:small",
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads; may be repeated.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size; may be repeated.")] = None,
    height: Annotated[int, typer.Option(min=16, help="Image height in pixels.")] = 368,
    width: Annotated[int, typer.Option(min=16, help="Image width in pixels.")] = 480,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; prints their median.")] = 10,
) -> None:
    """Print ms per image by threads, batch size and engine, and the speed relative to the first row."""
    version = artefact.read(artefact.resolve(model))
    shape = (max(batch or BATCHES), height, width, 3)
    image_BHWC = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    runs = {
        (num_threads, batch_size, name): partial(engine.predict, image_BHWC[:batch_size])
        for num_threads in threads or [1]
        for name, engine in create_engines(version, num_threads=num_threads).items()
        for batch_size in batch or BATCHES
    }
    print(f"{version.manifest.name}/{version.manifest.version}, {height} x {width}")
    report(runs, repeats=repeats)
    print_size()


def create_engines(version: Artefact, *, num_threads: int) -> dict[str, Engine]:
    """Create every engine that this version has a program for; torch on the CPU and, if there is one, on the GPU."""
    files = version.manifest.files
    names: list[EngineName] = [name for name in get_args(EngineName) if program_of(name, gpu=False) in files]
    engines = {str(name): create_engine(name, version, num_threads=num_threads) for name in names}
    if torch.cuda.is_available():
        engines["torch, GPU"] = create_engine("torch", version, num_threads=num_threads, gpu=True)
    return engines


def report(runs: Mapping[Setting, Callable[[], UInt8Array]], *, repeats: int) -> None:
    """Measure the runs in turns and print their medians and their speed relative to the first."""
    answers = {setting: run().astype(int) for setting, run in runs.items()}  # also warms up
    times_ms: dict[Setting, list[float]] = {setting: [] for setting in runs}
    for _ in range(repeats):
        for setting, run in runs.items():
            started = time.perf_counter()
            num_images = len(run())
            times_ms[setting].append(1000 * (time.perf_counter() - started) / num_images)
    columns = ("threads", "batch", "engine", "ms/image", "least", "most", "speed", "differs")
    print("{:>7} {:>5} {:>14} {:>8} {:>8} {:>8} {:>6} {:>8}".format(*columns))
    reference = next(iter(runs))
    reference_ms = statistics.median(times_ms[reference])
    for setting, measured_ms in times_ms.items():
        num_threads, batch_size, name = setting
        median_ms = statistics.median(measured_ms)
        spread = f"{min(measured_ms):8.2f} {max(measured_ms):8.2f}"
        # Every batch contains the first picture.
        differs = f"{abs(answers[setting][0] - answers[reference][0]).max()}/255"
        print(
            f"{num_threads:7} {batch_size:5} {name:>14} {median_ms:8.2f} {spread} {reference_ms / median_ms:5.2f}x "
            f"{differs:>8}"
        )


def print_size() -> None:
    """Print the disk usage of the serving environment, counting hard-linked files once."""
    sizes_bytes = {}
    for path in SERVE_ENVIRONMENT.rglob("*"):
        status = path.lstat()
        sizes_bytes[status.st_ino] = status.st_blocks * 512
    size_gb = sum(sizes_bytes.values()) / 1e9
    print(f"{SERVE_ENVIRONMENT.name} environment: {size_gb:.2f} GB, limit {SERVE_LIMIT_GB:.2f} GB")


if __name__ == "__main__":
    typer.run(main)
