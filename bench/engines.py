"""Milliseconds per image of the same artefact in eager torch, ONNX Runtime and OpenVINO, on two threads each.

Also the installed size of the serving environment. Needs the development environment, which has torch.
Example: .venv/dev/bin/python bench/engines.py --repeats 15
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import typer

from roadseg_serve import artefact
from roadseg_serve.artefact import Artefact
from roadseg_serve.predict import Engine, quantise

NUM_THREADS = 2
SIZES_HW = ((128, 128), (192, 640))
SERVE_ENVIRONMENT = Path(__file__).parents[1] / ".venv" / "serve"
SERVE_LIMIT_GB = 1.0

Bytes = npt.NDArray[np.uint8]
Predict = Callable[[Bytes], Bytes]


def main(
    model: Annotated[str, typer.Option(help="Model version, as for roadseg-serve.")] = "bundled:small",
    repeats: Annotated[int, typer.Option(min=1, help="Turns; the median of them is printed.")] = 15,
    images: Annotated[int, typer.Option(min=1, help="Images in one turn.")] = 10,
) -> None:
    """Print ms per image by engine and size beside eager torch, and how far their answers differ."""
    version = artefact.read(artefact.resolve(model))
    engines: dict[str, Predict] = {
        "eager torch": create_torch(version),
        "ONNX Runtime": create_onnx_runtime(version),
        "OpenVINO": Engine(version.onnx_path, num_threads=NUM_THREADS).predict,
    }
    print(f"{'H x W':>10} {'engine':>13} {'ms/image':>9} {'least':>7} {'most':>7} {'speed':>6} {'differs':>8}")
    for height, width in SIZES_HW:
        image_BHWC = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        report(f"{height} x {width}", engines, image_BHWC, repeats=repeats, images=images)
    print_size()


def report(size: str, engines: dict[str, Predict], image_BHWC: Bytes, *, repeats: int, images: int) -> None:
    """Measure the engines in turns and print their medians beside the first one's."""
    answers = {name: predict(image_BHWC).astype(int) for name, predict in engines.items()}  # warm-up too
    times_ms: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(repeats):
        for name, predict in engines.items():
            started = time.perf_counter()
            for _ in range(images):
                predict(image_BHWC)
            times_ms[name].append(1000 * (time.perf_counter() - started) / images)
    reference = next(iter(engines))
    slowest_ms = statistics.median(times_ms[reference])
    for name, measured_ms in times_ms.items():
        median_ms = statistics.median(measured_ms)
        spread = f"{min(measured_ms):7.2f} {max(measured_ms):7.2f}"
        differs = f"{abs(answers[name] - answers[reference]).max()}/255"
        print(f"{size:>10} {name:>13} {median_ms:9.2f} {spread} {slowest_ms / median_ms:5.2f}x {differs:>8}")


def create_torch(version: Artefact) -> Predict:
    """The artefact's exported program, run operator by operator."""
    torch.set_num_threads(NUM_THREADS)
    program = torch.export.load(version.folder / "model.pt2").module()

    def predict(image_BHWC: Bytes) -> Bytes:
        with torch.inference_mode():
            return quantise(program(torch.from_numpy(image_BHWC)).numpy())

    return predict


def create_onnx_runtime(version: Artefact) -> Predict:
    """The artefact's ONNX program in ONNX Runtime on CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = NUM_THREADS
    session = onnxruntime.InferenceSession(version.onnx_path, options, providers=["CPUExecutionProvider"])
    return lambda image_BHWC: quantise(session.run(["prob"], {"image": image_BHWC})[0])


def print_size() -> None:
    """Print what the serving environment takes on disk, each file once however often it is linked."""
    sizes_bytes = {}
    for path in SERVE_ENVIRONMENT.rglob("*"):
        status = path.lstat()
        sizes_bytes[status.st_ino] = status.st_blocks * 512
    size_gb = sum(sizes_bytes.values()) / 1e9
    print(f"{SERVE_ENVIRONMENT.name} environment: {size_gb:.2f} GB of at most {SERVE_LIMIT_GB:.2f} GB")


if __name__ == "__main__":
    typer.run(main)
