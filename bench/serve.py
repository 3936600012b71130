"""Measure the overhead of serving: compare /upload with the same work as a function in one process.

    .venv/dev/bin/python -m bench.serve --repeats 5

It measures two cases: *forward-bound*, with the bundled model, and *framework-bound*, with a model that does almost
nothing, which leaves the cost of everything around it. Both forms of the graph and the bare work run in turns on the
same pictures and cores. The machine should be otherwise idle. `--soak 10000` instead uploads pictures of mixed sizes
and watches the memory.
"""

import http.client
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.load import Served, draw_road, file_of, request_of, upload_for, upload_times
from roadseg_serve.engines.engine import create_engine
from roadseg_serve.models import artefact
from roadseg_serve.settings import AppArgs
from roadseg_serve.stages.postprocess import binarise, encode_jpeg, resize_back
from roadseg_serve.stages.preprocess import Limits, decode, resize_and_pad
from tests.red import write_red

READY_TIMEOUT_S = 180
CONCURRENCIES = (1, 8, 32)
NUM_CORES = len(os.sched_getaffinity(0))

# One engine thread per core.
FORMS = {
    "fused": f"form: fused\npredict: {{num_cpus: {NUM_CORES}}}\n",
    "staged": f"form: staged\npredict: {{num_cpus: {NUM_CORES}}}\n",
}


@dataclass(frozen=True)
class Server:
    """A running `roadseg-serve run`.

    Attributes:
        port: HTTP port.
        pid: process id of the command.
        ready_s: time from start until /health answered 200.
    """

    port: int
    pid: int
    ready_s: float


def main(
    model: Annotated[str, typer.Option(help="Model version that the first measurement serves.")] = "bundled:small",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; prints their median.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds per measurement.")] = 4.0,
    soak: Annotated[int, typer.Option(min=0, help="Upload this many pictures and watch the memory instead.")] = 0,
) -> None:
    """Print rates relative to the bare work, the time per stage and the memory of the replicas."""
    with tempfile.TemporaryDirectory() as folder:
        null = str(write_null(Path(folder)))
        if soak:
            watch_memory(model, soak)
            return
        print(f"{NUM_CORES} cores; medians of {repeats} turns of {seconds:g} s")
        measure("forward-bound", model, "1242x375 PNG", file_of(draw_road(1242, 375), "PNG"), repeats, seconds)
        measure("framework-bound", null, "480x360 JPEG", file_of(draw_road(480, 360), "JPEG"), repeats, seconds)


def write_null(folder: Path) -> Path:
    """Publish a model that does almost nothing, with the input size of the bundled ones."""
    size = artefact.read(artefact.resolve("bundled:small")).manifest.input.model_dump()
    return write_red(folder / "null" / "1", name="null", input=size)


def measure(regime: str, model: str, picture: str, data: bytes, repeats: int, seconds: float) -> None:
    """Measure one case: the bare work on one thread and on all cores, in two ways, and both forms of the graph."""
    print(f"\n{regime}: {model}, {picture}", flush=True)
    pipelines = [create_pipeline(model) for _ in range(NUM_CORES)]
    wide_pipeline = create_pipeline(model, num_threads=NUM_CORES)
    requests = [request_of(data)]
    with ExitStack() as stack:
        runs: dict[str, Callable[[], float]] = {
            "bare work, 1 thread": partial(rate_of, [partial(pipelines[0], data)], seconds),
            f"bare work, {NUM_CORES} threads": partial(rate_of, [partial(p, data) for p in pipelines], seconds),
            f"bare, engine on {NUM_CORES}": partial(rate_of, [partial(wide_pipeline, data)], seconds),
        }
        served: dict[str, list[Served]] = {}
        for form, settings in FORMS.items():
            server = stack.enter_context(running_server(model, settings))
            print(f"{form}: ready after {server.ready_s:.1f} s", flush=True)
            for concurrency in CONCURRENCIES:
                name = f"{form}, {concurrency} at once"
                upload = partial(upload_for, server.port, requests, concurrency, seconds)
                runs[name] = partial(note, served.setdefault(name, []), upload)
            stack.callback(print_memory, form, server)
        report(runs, repeats)
        print_stages(served)


def note(into: list[Served], upload: Callable[[], Served]) -> float:
    """Store a measurement and return its rate."""
    into.append(upload())
    return into[-1].rate


def report(runs: Mapping[str, Callable[[], float]], repeats: int) -> None:
    """Measure the runs in turns and print their medians, absolute and relative to the bare work."""
    for run in runs.values():  # warm-up, not counted
        run()
    rates: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(repeats):
        for what, run in runs.items():
            rates[what].append(run())
    one, *others = (statistics.median(rates[what]) for what in runs if what.startswith("bare"))
    best = max(one, *others)
    print(f"{'':>22} {'per s':>7} {'least':>7} {'most':>7} {'of 1 thread':>12} {'of the best':>13}")
    for what, measured in rates.items():
        median = statistics.median(measured)
        spread = f"{median:7.1f} {min(measured):7.1f} {max(measured):7.1f}"
        print(f"{what:>22} {spread} {median / one:12.2f} {median / best:13.2f}", flush=True)


def print_stages(served: Mapping[str, Sequence[Served]]) -> None:
    """Print the median milliseconds of every stage."""
    stages = list(dict.fromkeys(stage for turns in served.values() for s in turns for ms in s.stage_ms for stage in ms))
    print(f"{'ms, median':>22} " + " ".join(f"{stage:>8}" for stage in stages))
    for what, turns in served.items():
        answers = [ms for turn in turns for ms in turn.stage_ms]
        medians = (statistics.median(ms.get(stage, 0.0) for ms in answers) for stage in stages)
        print(f"{what:>22} " + " ".join(f"{median:8.1f}" for median in medians))


def create_pipeline(model: str, num_threads: int = 1) -> Callable[[bytes], bytes]:
    """Decode, resize, predict, resize back, binarise, encode: what the graph does, as one function."""
    args = AppArgs(model=model)
    version = artefact.read(artefact.resolve(model))
    engine = create_engine("auto", version, num_threads=num_threads)
    limits = Limits.of(args)

    def pipeline(data: bytes) -> bytes:
        frame = resize_and_pad(decode(data, limits), version.manifest.input.size)
        prob_HW = engine.predict(frame.input_HWC[None])[0]
        return encode_jpeg(binarise(resize_back(prob_HW, frame.placement), version.manifest.threshold))

    return pipeline


def rate_of(workers: list[Callable[[], object]], seconds: float) -> float:
    """Calls per second of all workers together, each of which calls in a loop."""
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


def watch_memory(model: str, num_uploads: int) -> None:
    """Upload pictures of many sizes and print the memory of the replicas after each tenth, and its growth."""
    sizes = [(1242, 375), (480, 360), (960, 720), (375, 1242), (64, 48), (1920, 1080), (333, 217), (800, 600)]
    requests = [request_of(file_of(draw_road(*size), kind)) for size in sizes for kind in ("JPEG", "PNG")]
    part = max(1, num_uploads // 10)
    with running_server(model, FORMS["fused"]) as server:
        sizes_mb = []
        for i in range(10):
            served = upload_times(server.port, requests, 8, part)
            sizes_mb.append(sum(rss_mb for rss_mb, _ in replica_memory_mb(server.pid)))
            print(f"{(i + 1) * part:6d} uploads: {sizes_mb[-1]:6.0f} MB, {served.rate:.1f} per s", flush=True)
    print(f"from the first tenth to the last: {100 * (sizes_mb[-1] / sizes_mb[0] - 1):+.1f} %")


def print_memory(form: str, server: Server) -> None:
    """Print the memory of a server's replicas, now and at its peak."""
    now_mb, peak_mb = (sum(values) for values in zip(*replica_memory_mb(server.pid), strict=True))
    print(f"{form}: memory of the replicas {now_mb:.0f} MB, peak {peak_mb:.0f} MB")


def replica_memory_mb(pid: int) -> list[tuple[float, float]]:
    """Resident memory in MB of every replica of a server, now and at its peak."""
    found = []
    for child in descendants(pid):
        status = Path(f"/proc/{child}/status").read_text()
        if re.search(r"^Name:\tray::ServeRepli", status, re.MULTILINE):
            now_kb, peak_kb = (int(re.findall(rf"{key}:\s+(\d+)", status)[0]) for key in ("VmRSS", "VmHWM"))
            found.append((now_kb / 1024, peak_kb / 1024))
    return found


def descendants(pid: int) -> list[int]:
    """Process ids of all children, grandchildren and so on."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        if thread.name != str(pid):
            children += [int(child) for child in (thread / "children").read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


@contextmanager
def running_server(
    model: str, settings: str, *options: str, program: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start `roadseg-serve run`, wait until it is healthy, and stop it in the end.

    Args:
        model: model version to serve.
        settings: settings file, as YAML.
        options: more options of the command.
        program: what to start instead of roadseg-serve.
        env: more environment variables.

    Raises:
        SystemExit: the server did not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    program = program or [str(Path(sys.executable).parent / "roadseg-serve")]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
        config.write(settings)
        config.flush()
        command = [*program, "run", "--model", model, "--port", str(port), "--config", config.name, *options]
        started = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | (env or {}))
        try:
            while not is_healthy(port):
                if server.poll() is not None or time.perf_counter() - started > READY_TIMEOUT_S:
                    raise SystemExit("the server did not start")
                time.sleep(0.1)
            yield Server(port=port, pid=server.pid, ready_s=time.perf_counter() - started)
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
