"""Compare frames/s of /stream with uploading the same frames one after another over one connection.

    .venv/dev/bin/python -m bench.stream --repeats 5

All measurements run in turns on the same server. The machine should be otherwise idle.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from websockets.sync.client import ClientConnection, connect

from bench.load import draw_road, file_of, request_of, upload_for
from bench.serve import FORMS, running_server, write_null
from roadseg_serve.http.stream import MAX_IN_FLIGHT, NEXT

TIMEOUT_S = 120
PAUSE_S = 0.2


def main(
    model: Annotated[str, typer.Option(help="Model version that the first measurement serves.")] = "bundled:small",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; prints their median.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds per measurement.")] = 4.0,
) -> None:
    """Print frames/s of uploads and streams, and the ratio to uploads."""
    data = file_of(draw_road(480, 360), "JPEG")
    with tempfile.TemporaryDirectory() as folder:
        for name in (model, str(write_null(Path(folder)))):
            for form, settings in FORMS.items():
                with running_server(name, settings) as server:
                    print(f"\n{name}, {form}, 480x360 JPEG, medians of {repeats} turns of {seconds:g} s", flush=True)
                    ways = {
                        "/upload, one by one": partial(uploaded_rate, server.port, data, seconds),
                        "/stream, one by one": partial(streamed_rate, server.port, data, 1, seconds),
                        "/stream, one waiting": partial(streamed_rate, server.port, data, MAX_IN_FLIGHT + 1, seconds),
                    }
                    report(ways, repeats)


def report(ways: Mapping[str, Callable[[], float]], repeats: int) -> None:
    """Measure in turns and print the medians, and the ratios to the first in the same turn."""
    for way in ways.values():  # warm-up, not counted
        way()
    turns = [{name: way() for name, way in ways.items()} for _ in range(repeats)]
    first = next(iter(ways))
    print(f"{'':>20} {'per s':>7} {'least':>7} {'most':>7} {'ratio':>6}")
    for name in ways:
        rates = [turn[name] for turn in turns]
        ratio = statistics.median(turn[name] / turn[first] for turn in turns)
        spread = f"{statistics.median(rates):7.1f} {min(rates):7.1f} {max(rates):7.1f}"
        print(f"{name:>20} {spread} {ratio:6.2f}", flush=True)


def uploaded_rate(port: int, data: bytes, seconds: float) -> float:
    """Masks per second if each upload waits for the previous one."""
    return upload_for(port, [request_of(data)], 1, seconds).rate


def streamed_rate(port: int, data: bytes, num_ahead: int, seconds: float) -> float:
    """Masks per second if `num_ahead` frames are always waiting for an answer; skipped frames do not count."""
    with connect(f"ws://127.0.0.1:{port}/stream", compression=None) as stream:
        for _ in range(num_ahead):
            stream.send(data)
            time.sleep(PAUSE_S)  # without a pause, the server would skip all but the last
        started_s = time.perf_counter()
        num_masks = 0
        while time.perf_counter() < started_s + seconds:
            num_skipped = receive(stream)
            stream.send(NEXT)
            for _ in range(1 + num_skipped):
                stream.send(data)
            num_masks += 1
        return num_masks / (time.perf_counter() - started_s)


def receive(stream: ClientConnection) -> int:
    """Receive one mask and return how many frames were skipped before it.

    Raises:
        SystemExit: the server refused the frame.
    """
    header = json.loads(stream.recv(TIMEOUT_S))
    if "problem" in header:
        raise SystemExit(f"/stream answered {header}")
    stream.recv(TIMEOUT_S)
    return int(header["skipped"])


if __name__ == "__main__":
    typer.run(main)
