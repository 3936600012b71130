"""Measure autoscaling: send a profile of uploads to a deployment and draw how the replicas follow.

    .venv/dev/bin/python -m bench.autoscale --url http://localhost:5000 --prometheus http://localhost:9090 --out scaling

Run it against `ci/serve --observe --config …` with an `autoscaling_config`, or against a cluster; `--prometheus` must
scrape it (use `kubectl port-forward`). The load is open-loop: uploads are sent on schedule, whether or not earlier ones
have been answered. Reaction times are limited by Ray's reports (every 10 s) and Prometheus' scrape interval.
"""

import io
import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from bench.load import draw_road, file_of
from tests.prometheus import ask

# When it was due and how long it took, in seconds; its HTTP status, or 0 without a response.
Upload = tuple[float, float, int]

NUM_CLIENTS = 128  # concurrent uploads; above this limit the load is lower than the profile
TIMEOUT_S = 60
STEP_S = 5  # between two points of the figure
SETTLE_S = 20  # for Ray's last report and the scrape after it


@dataclass(frozen=True)
class Phase:
    """A part of the profile, in which the rate changes linearly.

    Attributes:
        name: of the phase.
        duration_s: length of the phase.
        rates: uploads per second at its start and end, as multiples of the base rate.
    """

    name: str
    duration_s: float
    rates: tuple[float, float]


PROFILE = (
    Phase("idle", 20, (0, 0)),
    Phase("ramp", 60, (0, 1)),
    Phase("hold", 40, (1, 1)),
    Phase("idle", 80, (0, 0)),
    Phase("step", 60, (1, 1)),
    Phase("idle", 80, (0, 0)),
    Phase("spike", 15, (3, 3)),
    Phase("idle", 80, (0, 0)),
)
LOADS = ("ramp", "step", "spike")  # phases whose reaction is measured

# PromQL; SELECTOR stands for the labels of the deployment with the model, PLACE for those of the release.
QUERIES = {
    "desired": "max(ray_serve_autoscaling_desired_replicas{SELECTOR})",
    "target": "max(ray_serve_autoscaling_target_replicas{SELECTOR})",
    "actual": "sum(ray_serve_deployment_replica_healthy{SELECTOR} == 1)",
    "requests": "max(ray_serve_autoscaling_total_requests{SELECTOR})",
    "pods": "count(count by (pod, instance) (ray_node_mem_used{PLACE, component=~'serve-worker'}))",
}


@dataclass
class Measurement:
    """The load and the reaction to it.

    Attributes:
        phases: name and start of each phase, in seconds since the first.
        uploads: all uploads, by when they were due.
        series: time in seconds and value of each point, by query.
    """

    phases: list[tuple[str, float]] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def main(
    prometheus: Annotated[str, typer.Option(help="URL of the Prometheus that scrapes the server.")],
    out: Annotated[Path, typer.Option(help="Output folder for the figure and the data.")],
    url: Annotated[str, typer.Option(help="URL of the server.")] = "http://localhost:5000",
    host: Annotated[str | None, typer.Option(help="Host header, if an ingress controller routes by it.")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the release; local for ci/serve --observe.")] = "local",
    release: Annotated[str, typer.Option(help="Name of the release.")] = "roadseg",
    rate: Annotated[float, typer.Option(min=0.1, help="Base rate: uploads per second of the step.")] = 6.0,
) -> None:
    """Send the profile, query Prometheus and draw the figure. ROADSEG_API_KEY may hold an API key."""
    headers = {"Host": host} if host else {}
    if key := os.environ.get("ROADSEG_API_KEY"):
        headers["X-API-Key"] = key
    start_s = time.time()
    measurement = offer(f"{url}/upload", headers, rate)
    time.sleep(SETTLE_S)
    place = f'namespace="{namespace}", release="{release}"'
    measurement.series = look_up(prometheus, place, start_s, time.time())
    out.mkdir(parents=True, exist_ok=True)
    (out / "autoscale.json").write_text(json.dumps(asdict(measurement)) + "\n")
    (out / "autoscale.svg").write_text(draw(measurement))
    print(table(measurement))


def sending_times(profile: Sequence[Phase], rate: float) -> list[float]:
    """When the uploads of a profile are due, in seconds: one whenever the integral of the rate has grown by one."""
    times_s, start_s, area = [], 0.0, 0.0
    for phase in profile:
        steps = round(100 * phase.duration_s)
        for step in range(steps):
            share = step / steps
            area += rate * (phase.rates[0] * (1 - share) + phase.rates[1] * share) / 100
            if area >= 1:
                area -= 1
                times_s.append(start_s + phase.duration_s * share)
        start_s += phase.duration_s
    return times_s


def offer(url: str, headers: Mapping[str, str], rate: float) -> Measurement:
    """Send the uploads of the profile on schedule."""
    measurement = Measurement()
    start_s = 0.0
    for phase in PROFILE:
        measurement.phases.append((phase.name, start_s))
        start_s += phase.duration_s
    picture = file_of(draw_road(480, 360), "JPEG")
    lock = threading.Lock()
    limits = httpx.Limits(max_connections=NUM_CLIENTS, max_keepalive_connections=NUM_CLIENTS)
    with (
        httpx.Client(headers=headers, timeout=TIMEOUT_S, limits=limits) as client,
        ThreadPoolExecutor(NUM_CLIENTS) as pool,
    ):
        began_s = time.monotonic()

        def upload(due_s: float) -> None:
            try:
                status = client.post(url, files={"file": picture}).status_code
            except httpx.TransportError:
                status = 0
            with lock:
                measurement.uploads.append((due_s, time.monotonic() - began_s - due_s, status))

        for due_s in sending_times(PROFILE, rate):
            time.sleep(max(0.0, due_s - (time.monotonic() - began_s)))
            pool.submit(upload, due_s)
        time.sleep(max(0.0, start_s - (time.monotonic() - began_s)))
    measurement.uploads.sort()
    return measurement


def look_up(prometheus: str, place: str, start_s: float, end_s: float) -> dict[str, list[tuple[float, float]]]:
    """Query Prometheus for the time from `start_s` to `end_s` (Unix time); the result counts seconds from `start_s`."""
    series = {}
    for name, query in QUERIES.items():
        expression = query.replace("SELECTOR", f'{place}, deployment=~"Model|Fused"').replace("PLACE", place)
        answer: Any = ask(prometheus, "query_range", query=expression, start=start_s, end=end_s, step=STEP_S)
        values = answer["result"][0]["values"] if answer["result"] else []
        series[name] = [(float(at_s) - start_s, float(value)) for at_s, value in values]
    return series


def reaction_s(series: Sequence[tuple[float, float]], start_s: float, end_s: float) -> float | None:
    """Seconds from the start of a load until a series rises above its value at the start, or None if it does not."""
    before = [value for at_s, value in series if at_s <= start_s]
    level = before[-1] if before else 0.0
    return next((at_s - start_s for at_s, value in series if start_s < at_s < end_s and value > level), None)


def quantile_s(uploads: Sequence[Upload], share: float) -> float:
    """A quantile of the latency of answered uploads, interpolated; nan if none was answered."""
    times_s = [duration_s for _, duration_s, status in uploads if status == 200]
    return float(np.quantile(times_s, share)) if times_s else math.nan


def in_steps(uploads: Sequence[Upload], end_s: float) -> list[list[Upload]]:
    """The uploads, grouped by the figure's time step in which they were due; the last step contains `end_s`."""
    steps: list[list[Upload]] = [[] for _ in range(int(end_s / STEP_S) + 1)]
    for upload in uploads:
        steps[int(upload[0] / STEP_S)].append(upload)
    return steps


def table(measurement: Measurement) -> str:
    """A Markdown table of reactions and failures by load."""
    lines = [
        "| load | desired after | target | replica ready | pod | uploads | not answered | p50, p95 |",
        "|---" * 8 + "|",
    ]
    starts = [*measurement.phases, ("end", float("inf"))]
    for number, (name, start_s) in enumerate(measurement.phases):
        if name not in LOADS:
            continue
        end_s = next(at_s for later, at_s in starts[number + 1 :] if later in (*LOADS, "end"))
        reactions = [
            reaction_s(measurement.series[what], start_s, end_s) for what in ("desired", "target", "actual", "pods")
        ]
        uploads = [upload for upload in measurement.uploads if start_s <= upload[0] < end_s]
        failed = sum(status != 200 for _, _, status in uploads)
        p50_s, p95_s = quantile_s(uploads, 0.5), quantile_s(uploads, 0.95)
        cells = ["none" if reaction is None else f"{reaction:.0f} s" for reaction in reactions]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(uploads)} | {failed} | {p50_s:.1f} s, {p95_s:.1f} s |")
    return "\n".join(lines)


def draw(measurement: Measurement) -> str:
    """The figure as SVG: load, replicas, requests in the system and latency over time."""
    import matplotlib as mpl  # noqa: PLC0415  # takes a second to import

    mpl.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "roadseg"  # makes the file reproducible
    figure, rows = pyplot.subplots(4, 1, sharex=True, figsize=(9, 8), layout="constrained")
    sent_s = [at_s for at_s, _, _ in measurement.uploads]
    end_s = max(sent_s[-1], *(series[-1][0] for series in measurement.series.values() if series))
    steps = in_steps(measurement.uploads, end_s)
    edges = [STEP_S * i for i in range(len(steps))]
    offered = [len(step) / STEP_S for step in steps]
    answered = [sum(status == 200 for _, _, status in step) / STEP_S for step in steps]
    rows[0].step(edges, offered, where="post", color="#777", label="offered")
    rows[0].step(edges, answered, where="post", color="#1a7f37", label="of these answered")
    rows[0].set_ylabel("uploads per s")
    for name, style in (("desired", ":"), ("target", "--"), ("actual", "-")):
        rows[1].step(*_columns(measurement.series[name]), where="post", linestyle=style, label=f"{name} replicas")
    rows[1].step(*_columns(measurement.series["pods"]), where="post", color="#999", label="worker pods")
    rows[1].set_ylabel("replicas, pods")
    rows[2].step(*_columns(measurement.series["requests"]), where="post", color="#8250df", label="waiting and in work")
    rows[2].set_ylabel("requests")
    middles, p95_s = [edge + STEP_S / 2 for edge in edges], [quantile_s(step, 0.95) for step in steps]
    rows[3].plot(middles, p95_s, color="#bc4c00", marker=".", label="p95, by when it was sent")
    rows[3].set_ylabel("seconds")
    rows[3].set_xlabel("seconds since the start")
    for row in rows:
        row.set_ylim(bottom=0)
        row.grid(alpha=0.2)
        row.legend(loc="upper left", fontsize="small", frameon=False)
        for name, at_s in measurement.phases:
            row.axvline(at_s, color="#ddd", linewidth=0.8, zorder=0)
            if row is rows[0] and name in LOADS:
                row.annotate(
                    name, (at_s, 1), xycoords=("data", "axes fraction"), xytext=(2, 4), textcoords="offset points"
                )
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _columns(series: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [at_s for at_s, _ in series], [value for _, value in series]


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
