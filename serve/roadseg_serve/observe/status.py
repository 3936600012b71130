"""The status of the whole server, from the metrics of all nodes and from Ray Serve's own state.

Ray exports metrics every ten seconds, so figures are up to ten seconds old. Counts of a replica or node that has gone
since the last export are lost.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, Field

from roadseg_serve.errors import ModelUnavailableError
from roadseg_serve.observe.prometheus import Series, increases, mean_of_integers, quantile, sums

WINDOW_S = 60.0
MIN_WINDOW_S = 15.0  # rates over less would be rough
PERIOD_S = 5.0  # between two snapshots, at least
HISTORY_S = 600.0
TIMEOUT_S = 10.0

LATENCY = "ray_roadseg_stage_latency_ms_bucket"
TOTAL_LATENCY = "ray_serve_http_request_latency_ms_bucket"
BATCH_SIZE = "ray_roadseg_batch_size_bucket"
REFUSALS = ("ray_roadseg_rejected_uploads_total", "ray_roadseg_refused_by_ray_total")
LOADED = "ray_roadseg_model_loaded"
REQUESTS = "ray_serve_num_http_requests_total"
PROCESSING = "ray_serve_replica_processing_queries"
TARGET = "ray_serve_autoscaling_target_replicas"
WAITING = ("ray_serve_deployment_queued_queries", "ray_serve_batch_queue_length")
NAMES = (LATENCY, TOTAL_LATENCY, BATCH_SIZE, LOADED, REQUESTS, PROCESSING, TARGET, *WAITING, *REFUSALS)

log = logging.getLogger("ray.serve.roadseg")


@dataclass(frozen=True)
class Snapshot:
    """The state of all nodes at one time: their metrics, and what could not be learnt."""

    time_s: float  # since 1970
    series: Series
    deployments: Mapping[str, tuple[str, Mapping[str, int]]]  # by name: its state, and the number of replicas by state
    problems: Sequence[str] = ()


class Quantiles(BaseModel):
    """The median and the 95th percentile, in milliseconds."""

    p50: float
    p95: float


class LoadedModel(BaseModel):
    """A model version and the number of replicas that have loaded it."""

    name: str
    version: str
    replicas: int


class DeploymentStatus(BaseModel):
    """One stage, or all of them in a fused graph.

    Attributes:
        state: as Ray Serve reports it, such as HEALTHY or UPDATING.
        target: the number of replicas wanted; null if unknown.
        replicas: the number of replicas in each state, such as RUNNING or STARTING.
        working: requests that its replicas are processing.
        waiting: requests that wait for a replica or for a batch.
    """

    name: str
    state: str
    target: int | None
    replicas: dict[str, int]
    working: int
    waiting: int


class Moment(BaseModel):
    """One point of the charts; null means unknown.

    Attributes:
        time_s: seconds since 1970.
        pictures_per_s: uploads and stream frames answered.
        p95_ms: of whole requests.
        waiting: requests waiting at all deployments.
        failed_share: the share of requests, in [0, 1], answered with 5xx.
    """

    time_s: float
    pictures_per_s: float | None
    p95_ms: float | None
    waiting: int
    failed_share: float | None


class Status(BaseModel):
    """The whole server: all replicas on all nodes.

    Attributes:
        time_s: time of the snapshot, seconds since 1970.
        window_s: the time that rates, quantiles and counts cover; 0 at first, when there are none yet.
        models: the versions loaded now; two while one replaces the other.
        pictures_per_s: uploads and stream frames answered.
        requests: the number of answers to POST in the window, by HTTP status.
        failed_share: the share of those, in [0, 1], with 5xx; null without requests.
        latency_ms: by step in processing order, then of whole requests as `total`; only steps that ran.
        batch_size: mean number of frames in one prediction; null without predictions.
        refusals: the number of refused requests in the window, by reason.
        deployments: sorted by name.
        problems: what could not be learnt, so that figures are incomplete.
        history: the last minutes, oldest first; recorded only while somebody asks.
    """

    time_s: float
    window_s: float
    models: list[LoadedModel]
    pictures_per_s: float | None
    requests: dict[str, int]
    failed_share: float | None
    latency_ms: dict[str, Quantiles]
    batch_size: float | None
    refusals: dict[str, int]
    deployments: list[DeploymentStatus]
    problems: list[str]
    history: list[Moment] = Field(default_factory=list)


class StatusMonitor:
    """Answers from a snapshot of the whole server, taken when somebody asks and the last one is older than `PERIOD_S`.

    A snapshot makes Ray's agent on each node produce some hundred kilobytes of text, and costs this process a few
    milliseconds. `steps` are the names of the processing steps, in order; `take_snapshot` may block.
    """

    def __init__(self, steps: Iterable[str], take_snapshot: Callable[[], Snapshot]) -> None:
        self._steps = tuple(steps)
        self._take_snapshot = take_snapshot
        self._snapshots: list[Snapshot] = []
        self._history: list[Moment] = []
        self._update: asyncio.Task[Status] | None = None
        self._started_s = 0.0

    async def status(self) -> Status:
        """The latest status; raises ModelUnavailableError if Ray or its nodes do not answer."""
        # One at a time, even if Ray never answers: whoever asks meanwhile waits for the same update.
        if self._update is None or (self._update.done() and time.monotonic() - self._started_s >= PERIOD_S):
            self._started_s = time.monotonic()
            self._update = asyncio.create_task(asyncio.to_thread(self._take))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.shield(self._update)
        except Exception as error:  # a timeout, or whatever Ray raises
            log.exception("cannot learn the server's status")
            raise ModelUnavailableError("The server's nodes do not answer. Try again in a moment.") from error

    def _take(self) -> Status:
        now = self._take_snapshot()
        self._snapshots.append(now)
        # The newest snapshot that is old enough, or else the oldest.
        old = (each for each in reversed(self._snapshots) if each.time_s <= now.time_s - WINDOW_S)
        status = summarise(next(old, self._snapshots[0]), now, self._steps)
        self._history.append(moment_of(status))
        self._snapshots = [each for each in self._snapshots if each.time_s >= now.time_s - HISTORY_S]
        self._history = [each for each in self._history if each.time_s >= now.time_s - HISTORY_S]
        return status.model_copy(update={"history": self._history})


def summarise(first: Snapshot, now: Snapshot, steps: Iterable[str]) -> Status:
    """The status at `now`; rates and counts are those since `first`, if that is at least `MIN_WINDOW_S` older."""
    window_s = now.time_s - first.time_s
    if window_s < MIN_WINDOW_S:
        first, window_s = now, 0.0
    new = increases(first.series, now.series)
    requests = _counts(sums(new, REQUESTS, by="status_code", method="POST"))
    num_failed = sum(num for status, num in requests.items() if status.startswith("5"))
    latency = {step: _quantiles(sums(new, LATENCY, by="le", stage=step)) for step in steps}
    latency["total"] = _quantiles(sums(new, TOTAL_LATENCY, by="le", method="POST"))
    num_pictures = sums(new, LATENCY, by="le", stage="encode").get("+Inf", 0.0)
    return Status(
        time_s=now.time_s,
        window_s=window_s,
        models=_models(now.series),
        pictures_per_s=num_pictures / window_s if window_s else None,
        requests=requests,
        failed_share=num_failed / sum(requests.values()) if requests else None,
        latency_ms={step: quantiles for step, quantiles in latency.items() if quantiles},
        batch_size=mean_of_integers(sums(new, BATCH_SIZE, by="le")),
        refusals=_counts(sums(new, *REFUSALS, by="reason")),
        deployments=_deployments(now),
        problems=list(now.problems),
    )


def moment_of(status: Status) -> Moment:
    """The point of the charts for a status."""
    total = status.latency_ms.get("total")
    return Moment(
        time_s=status.time_s,
        pictures_per_s=status.pictures_per_s,
        p95_ms=total.p95 if total else None,
        waiting=sum(deployment.waiting for deployment in status.deployments),
        failed_share=status.failed_share,
    )


def _counts(values: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers above 0 with a name, sorted by name."""
    return {name: round(value) for name, value in sorted(values.items()) if name and round(value)}


def _quantiles(buckets: Mapping[str, float]) -> Quantiles | None:
    p50, p95 = quantile(buckets, 0.5), quantile(buckets, 0.95)
    return None if p50 is None or p95 is None else Quantiles(p50=round(p50, 1), p95=round(p95, 1))


def _models(series: Series) -> list[LoadedModel]:
    loaded = [dict(labels) for (name, labels), value in series.items() if name == LOADED and value]
    nums = Counter((labels["model"], labels["version"]) for labels in loaded)
    return [LoadedModel(name=name, version=version, replicas=num) for (name, version), num in sorted(nums.items())]


def _deployments(snapshot: Snapshot) -> list[DeploymentStatus]:
    targets = sums(snapshot.series, TARGET, by="deployment")
    working = sums(snapshot.series, PROCESSING, by="deployment")
    waiting = sums(snapshot.series, *WAITING, by="deployment")
    return [
        DeploymentStatus(
            name=name,
            state=state,
            target=round(targets[name]) if name in targets else None,
            replicas=dict(replicas),
            working=round(working.get(name, 0.0)),
            waiting=round(waiting.get(name, 0.0)),
        )
        for name, (state, replicas) in sorted(snapshot.deployments.items())
    ]
