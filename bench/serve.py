"""How much of the work's own speed is left when it is served: /upload beside the same work in one process.

Both run the same functions with the same engine settings on the same pictures, in turns, on a machine that
should have nothing else to do. Example: .venv/dev/bin/python bench/serve.py --repeats 5
"""

import http.client
import io
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw

from roadseg_serve import artefact
from roadseg_serve.postprocess import binarise, encode, unfit
from roadseg_serve.predict import Engine
from roadseg_serve.preprocess import Limits, decode, fit
from roadseg_serve.settings import AppArgs

READY_TIMEOUT_S = 120
BOUNDARY = "roadseg-bench"
CONCURRENCIES = (1, 8)


def main(
    model: Annotated[str, typer.Option(help="Model version, as for roadseg-serve.")] = "bundled:small",
    repeats: Annotated[int, typer.Option(min=1, help="Turns; the median of them is printed.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 5.0,
) -> None:
    """Print requests/s of /upload and images/s of the same work without a server, and their ratio."""
    pictures = {
        "480x360 JPEG": file_of(draw_road(480, 360), "JPEG"),
        "1242x375 PNG": file_of(draw_road(1242, 375), "PNG"),
    }
    pipeline = create_pipeline(model)
    print(f"{'picture':>14} {'what':>22} {'per s (median)':>15} {'least':>7} {'most':>7} {'ratio':>6}")
    with running_server(model) as port:
        for name, data in pictures.items():
            runs = {"one process, no server": partial(rate_of, [partial(pipeline, data)], seconds)}
            for concurrency in CONCURRENCIES:
                runs[f"/upload, {concurrency} at once"] = partial(served_rate, port, data, concurrency, seconds)
            report(name, runs, repeats)


def draw_road(width: int, height: int) -> Image.Image:
    """A grey road narrowing to the horizon between green and sky, with camera noise; RGB."""
    picture = Image.new("RGB", (width, height), (150, 180, 220))
    draw = ImageDraw.Draw(picture)
    horizon = int(height * 0.45)
    draw.rectangle((0, horizon, width, height), fill=(70, 110, 60))
    road = [(width * 0.05, height), (width * 0.46, horizon), (width * 0.54, horizon), (width * 0.95, height)]
    draw.polygon(road, fill=(105, 105, 110))
    # Without noise a PNG of it would be far smaller, and quicker to decode, than one of a camera.
    noise_HWC = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise_HWC, 0, 255).astype(np.uint8))


def file_of(picture: Image.Image, kind: str) -> bytes:
    """The picture as a file of this format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def report(name: str, runs: Mapping[str, Callable[[], float]], repeats: int) -> None:
    """Measure the runs in turns and print their medians beside the first one's."""
    for run in runs.values():  # warm-up, not counted
        run()
    rates: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(repeats):
        for what, run in runs.items():
            rates[what].append(run())
    ceiling = statistics.median(next(iter(rates.values())))
    for what, measured in rates.items():
        median = statistics.median(measured)
        spread = f"{min(measured):7.1f} {max(measured):7.1f}"
        print(f"{name:>14} {what:>22} {median:15.1f} {spread} {median / ceiling:6.2f}", flush=True)


def create_pipeline(model: str) -> Callable[[bytes], bytes]:
    """Decode, fit, predict, unfit, binarise, encode: what the graph does, as one function."""
    args = AppArgs(model=model)
    version = artefact.read(artefact.resolve(model))
    engine = Engine(version.onnx_path, num_threads=args.predict.num_threads)
    limits = Limits(max_upload_bytes=args.max_upload_bytes, max_pixels=args.max_pixels)

    def pipeline(data: bytes) -> bytes:
        frame = fit(decode(data, limits), version.manifest.input.size)
        prob_HW = engine.predict(frame.input_HWC[None])[0]
        return encode(binarise(unfit(prob_HW, frame.placement), version.manifest.threshold))

    return pipeline


def rate_of(workers: list[Callable[[], object]], seconds: float) -> float:
    """Calls per second of all workers together, each calling again and again for so long."""
    deadline = time.perf_counter() + seconds

    def work(call: Callable[[], object]) -> int:
        done = 0
        while time.perf_counter() < deadline:
            call()
            done += 1
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(len(workers)) as pool:
        calls = sum(pool.map(work, workers))
    return calls / (time.perf_counter() - started)


def served_rate(port: int, data: bytes, concurrency: int, seconds: float) -> float:
    """Uploads per second with so many clients at once, each over one connection that stays open."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="road"\r\n\r\n'
    body = head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(concurrency)]

    def upload_over(connection: http.client.HTTPConnection) -> Callable[[], None]:
        def upload() -> None:
            connection.request("POST", "/upload", body, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status != http.HTTPStatus.OK:
                raise SystemExit(f"/upload answered {response.status}: {answer.decode(errors='replace')}")

        return upload

    try:
        return rate_of([upload_over(connection) for connection in connections], seconds)
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def running_server(model: str) -> Iterator[int]:
    """`roadseg-serve run` in a process of its own; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    program = str(Path(sys.executable).parent / "roadseg-serve")
    started = time.perf_counter()
    server = subprocess.Popen([program, "run", "--model", model, "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        while not is_healthy(port):
            if server.poll() is not None or time.perf_counter() - started > READY_TIMEOUT_S:
                raise SystemExit("the server did not start")
            time.sleep(0.1)
        print(f"ready after {time.perf_counter() - started:.1f} s")
        yield port
    finally:
        server.terminate()
        server.wait()


def is_healthy(port: int) -> bool:
    """Whether GET /health answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    typer.run(main)
