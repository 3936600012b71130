"""Measure the cost of metrics, log lines and traces: uploads per second with and without them.

    .venv/dev/bin/python -m bench.observe                # a model that does almost nothing: the upper bound
    .venv/dev/bin/python -m bench.observe --model bundled:small

All servers run at once and take turns, so each ratio compares measurements close in time.

* `bare` has none of the three: RAY_enable_metrics_collection=0, which turns our own metrics calls into no-ops, and
  Serve's log at level ERROR, so that requests write no line.
* `metrics` has metrics only.
* `plain` is the default: metrics, and a JSON log line per request.
* `traced 1 %` and `traced all` also send spans to a collector in this process.

The last line is the cost of roadseg's own metrics.
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
# The command has no option for the level, because nobody should need it.
SILENT = """
from roadseg_serve import cli, local_server
local_server.logging_config = lambda _format: {"log_level": "ERROR", "enable_access_log": False}
cli.main()
"""


def main(
    model: Annotated[str, typer.Option(help="Model version; null does almost nothing.")] = "null",
    form: Annotated[Literal["fused", "staged"], typer.Option(help="Form of the graph.")] = "fused",
    concurrency: Annotated[int, typer.Option(min=1, help="Concurrent uploads.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; prints their median.")] = 15,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds per measurement.")] = 4.0,
    only: Annotated[list[str] | None, typer.Option(help="Servers to compare with the bare one; default: all.")] = None,
) -> None:
    """Print the rate of each server and the median of its ratio to the bare server."""
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
            # The order rotates, so that none always follows the same other.
            for name in list(ports)[turn % len(ports) :] + list(ports)[: turn % len(ports)]:
                rates[name].append(upload_for(ports[name], requests, concurrency, seconds).rate)
    print(f"{model}, {form}, {concurrency} at once; medians of {repeats} turns of {seconds:g} s")
    report(rates)
    print(f"roadseg's own metrics take {own_counting_us():.0f} microseconds per upload")


def own_counting_us(num_uploads: int = 5000) -> float:
    """Microseconds per upload that ingress and model spend on metrics, with one upload per batch and no other load."""
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
    """Print the median rate of each server, and of its ratios to the bare server in the same turn."""
    print(f"{'':>12} {'per s':>8} {'of bare':>8} {'least':>8} {'most':>8}")
    for name, measured in rates.items():
        ratios = [rate / bare for rate, bare in zip(measured, rates["bare"], strict=True)]
        spread = f"{statistics.median(ratios):8.3f} {min(ratios):8.3f} {max(ratios):8.3f}"
        print(f"{name:>12} {statistics.median(measured):8.1f} {spread}")


if __name__ == "__main__":
    typer.run(main)
