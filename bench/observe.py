"""What metrics, log lines and traces cost: uploads per second with them and without, on the same machine in one run.

    .venv/dev/bin/python -m bench.observe                # a model that does nearly nothing: the most that they can cost
    .venv/dev/bin/python -m bench.observe --model bundled:small

All servers run at once, and are asked in turns; each turn compares neighbours in time. `bare` is the same server with
Ray's collection of metrics off (RAY_enable_metrics_collection=0; our own calls that count are still made, and lead
nowhere), with Serve's log at the level ERROR, so that no line is written for a request, and without traces. `metrics`
has metrics, and no lines. `plain` is the default: metrics, and a JSON line for each request. `traced 1 %` and
`traced all` send spans too, to a collector in this process. The last line says what is roadseg's own counting.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import ray
import typer

from bench.load import draw_road, file_of, request_of, upload_for
from bench.serve import FORMS, running_server, write_null
from roadseg_serve.http.api import STEPS
from roadseg_serve.messages import Answer, ModelName
from roadseg_serve.observe.metrics import Metrics, ModelMetrics
from tests.otlp import collect

JSON_LINES = ("--log-format", "json")
# The level is no option of the command, as nobody should want it.
SILENT = """
from roadseg_serve import cli
from roadseg_serve.http import log
log.logging_config = lambda _format: {"log_level": "ERROR", "enable_access_log": False}
cli.main()
"""


def main(
    model: Annotated[str, typer.Option(help="Model version; null does nearly nothing.")] = "null",
    form: Annotated[Literal["fused", "staged"], typer.Option(help="Of the graph.")] = "fused",
    concurrency: Annotated[int, typer.Option(min=1, help="Uploads at once.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Turns; the median of them is printed.")] = 15,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 4.0,
    only: Annotated[list[str] | None, typer.Option(help="Servers beside the bare one; default: all.")] = None,
) -> None:
    """Print the rate of each kind of server, and the median over the turns of its ratio to the bare one's."""
    requests = [request_of(file_of(draw_road(480, 360), "JPEG"))]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        uri = str(write_null(Path(folder))) if model == "null" else model
        whereto = {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.enter_context(collect()).url}
        ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
        settings, silent = FORMS[form], [sys.executable, "-c", SILENT]
        servers = {
            "bare": running_server(uri, settings, program=silent, env={"RAY_enable_metrics_collection": "0"}),
            "metrics": running_server(uri, settings, program=silent),
            "plain": running_server(uri, settings, *JSON_LINES),
            "traced 1 %": running_server(uri, settings, *JSON_LINES, "--trace", env=whereto | ratio),
            "traced all": running_server(uri, settings, *JSON_LINES, "--trace", env=whereto),
        }
        names = ["bare", *only] if only else servers
        ports = {name: stack.enter_context(servers[name]).port for name in names}
        for port in ports.values():  # warm-up, not counted
            upload_for(port, requests, concurrency, seconds)
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for turn in range(repeats):
            # In another order each time, so that none is always after the same one.
            for name in list(ports)[turn % len(ports) :] + list(ports)[: turn % len(ports)]:
                rates[name].append(upload_for(ports[name], requests, concurrency, seconds).rate)
    print(f"{model}, {form}, {concurrency} at once; medians of {repeats} turns of {seconds:g} s")
    report(rates)
    print(f"roadseg's own counting takes {own_counting_us():.0f} microseconds of an upload")


def own_counting_us(num_uploads: int = 5000) -> float:
    """Microseconds that ingress and model count for, per upload in a batch of its own, where nothing else runs."""
    model = ModelName("null", "1")
    answer = Answer(b"", "image/jpeg", model, road_share=0.3, times_s=dict.fromkeys(STEPS, 0.004))
    with ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False):
        ingress, replica = Metrics(), ModelMetrics(model)
        started_s = time.perf_counter()
        for _ in range(num_uploads):
            replica.note_batch(1)
            ingress.note_answer(answer)
        return 1e6 * (time.perf_counter() - started_s) / num_uploads


def report(rates: Mapping[str, Sequence[float]]) -> None:
    """Print the median rate of each kind of server, and of its ratios to the bare one's of the same turn."""
    print(f"{'':>12} {'per s':>8} {'of bare':>8} {'least':>8} {'most':>8}")
    for name, measured in rates.items():
        ratios = [rate / bare for rate, bare in zip(measured, rates["bare"], strict=True)]
        spread = f"{statistics.median(ratios):8.3f} {min(ratios):8.3f} {max(ratios):8.3f}"
        print(f"{name:>12} {statistics.median(measured):8.1f} {spread}")


if __name__ == "__main__":
    typer.run(main)
