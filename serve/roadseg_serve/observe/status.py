"""What the whole server is doing, from what every node of it tells Prometheus: pure functions.

Limits, which the page says too:

* Ray exports every ten seconds, so that a figure is up to ten seconds old, and rates over less than `MIN_WINDOW_S`
  would be rough: there are none then.
* Quantiles are as good as the buckets: within one they are interpolated, as Prometheus does it.
* What a replica or a node counted last before it went is lost with it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, Field

WINDOW_S = 60.0
MIN_WINDOW_S = 15.0
QUANTILES = (0.5, 0.95)

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

Labels = tuple[tuple[str, str], ...]  # sorted
Series = dict[tuple[str, Labels], float]


@dataclass(frozen=True)
class Look:
    """What all nodes told at one time.

    Attributes:
        time_s: of the clock, seconds since 1970.
        series: of all nodes that answered.
        states: of each deployment, what Ray Serve says of it and how many replicas are in which state.
        problems: what could not be asked.
    """

    time_s: float
    series: Series
    states: Mapping[str, tuple[str, Mapping[str, int]]]
    problems: Sequence[str] = ()


class Quantiles(BaseModel):
    """Milliseconds that half, and 95 of 100, take at the most."""

    p50: float
    p95: float


class LoadedModel(BaseModel):
    """A model version, and how many replicas have loaded it."""

    name: str
    version: str
    replicas: int


class DeploymentStatus(BaseModel):
    """One stage, or all in one.

    Attributes:
        state: as Ray Serve calls it, such as HEALTHY or UPDATING.
        target: replicas that there are to be; null where it is not known.
        replicas: how many are in which state, such as RUNNING or STARTING.
        working: requests that its replicas work on.
        waiting: requests that wait for a replica, or for a batch.
    """

    name: str
    state: str
    target: int | None
    replicas: dict[str, int]
    working: int
    waiting: int


class Moment(BaseModel):
    """One point of the charts; null is unknown.

    Attributes:
        time_s: seconds since 1970.
        pictures_per_s: answered, uploads and frames of streams.
        p95_ms: of a whole request.
        waiting: requests, at all deployments.
        failed_share: of the requests, in [0, 1], that were answered with 5xx.
    """

    time_s: float
    pictures_per_s: float | None
    p95_ms: float | None
    waiting: int
    failed_share: float | None


class Status(BaseModel):
    """What the whole server is doing: all of its replicas, on all nodes.

    Attributes:
        time_s: when it was asked, seconds since 1970.
        window_s: over which rates, quantiles and counts are; 0 where it has not been watched for long enough.
        models: loaded now; two while one is replaced by the other.
        pictures_per_s: answered, uploads and frames of streams.
        requests: answers to POST in the window, by HTTP status.
        failed_share: of those, in [0, 1], with 5xx; null where there were none.
        latency_ms: of each step, in their order, and of whole requests as `total`; only of those that there were.
        batch_size: frames in one prediction, on the average; null where there were none.
        refusals: in the window, by reason.
        deployments: in the order of their names.
        problems: what could not be asked, so that figures are incomplete.
        history: of the last minutes, oldest first; only as long as somebody looks.
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


def parse(text: str, node: str) -> Series:
    """The series that matter here, of the exposition text of one node.

    Args:
        text: in Prometheus' format.
        node: becomes a label, so that series of different nodes differ.
    """
    lines = "\n".join(line for line in text.splitlines() if line.startswith(NAMES)) + "\n"
    samples = (sample for family in text_string_to_metric_families(lines) for sample in family.samples)
    # What begins like a name may be another.
    return {
        (sample.name, tuple(sorted({**sample.labels, "node": node}.items()))): sample.value
        for sample in samples
        if sample.name in NAMES
    }


def summarise(looks: Sequence[Look], steps: Iterable[str]) -> Status:
    """The status at the last of some looks, which are in the order of time.

    Args:
        looks: at least one; what is older than `WINDOW_S` before the last is not used.
        steps: names of the steps of the work, in their order.
    """
    now = looks[-1]
    first = next(look for look in looks if look.time_s >= now.time_s - WINDOW_S)
    window_s = now.time_s - first.time_s
    if window_s < MIN_WINDOW_S:
        first, window_s = now, 0.0
    gains = _gains(first.series, now.series)
    requests = {
        status: round(num)
        for status, num in sorted(_by(gains, REQUESTS, "status_code", method="POST").items())
        if status and round(num)
    }
    num_requests = sum(requests.values())
    num_failed = sum(num for status, num in requests.items() if status.startswith("5"))
    latency = {step: _quantiles(_by(gains, LATENCY, "le", stage=step)) for step in steps}
    latency["total"] = _quantiles(_by(gains, TOTAL_LATENCY, "le", method="POST"))
    num_pictures = _by(gains, LATENCY, "le", stage="encode").get("+Inf", 0.0)
    return Status(
        time_s=now.time_s,
        window_s=window_s,
        models=_models(now.series),
        pictures_per_s=num_pictures / window_s if window_s else None,
        requests=requests,
        failed_share=num_failed / num_requests if num_requests else None,
        latency_ms={step: quantiles for step, quantiles in latency.items() if quantiles is not None},
        batch_size=mean_of_whole_numbers(_by(gains, BATCH_SIZE, "le")),
        refusals=_refusals(gains),
        deployments=_deployments(now),
        problems=list(now.problems),
    )


def moment_of(status: Status) -> Moment:
    """What the charts show of a status."""
    total = status.latency_ms.get("total")
    return Moment(
        time_s=status.time_s,
        pictures_per_s=status.pictures_per_s,
        p95_ms=total.p95 if total else None,
        waiting=sum(deployment.waiting for deployment in status.deployments),
        failed_share=status.failed_share,
    )


def quantile(buckets: Mapping[str, float], share: float) -> float | None:
    """The value that `share` of all observations do not exceed, as Prometheus' histogram_quantile finds it.

    Args:
        buckets: upper bound, as the label `le` says it, to how many are at or below it.
        share: in [0, 1].

    Returns:
        Interpolated within its bucket; the highest finite bound where it lies above; None where nothing was observed.
    """
    bounds = sorted((float(le), num) for le, num in buckets.items())
    if not bounds or bounds[-1][1] <= 0:
        return None
    rank = share * bounds[-1][1]
    lower, below = 0.0, 0.0
    for upper, num in bounds:
        if num >= rank and upper != float("inf"):
            return lower + (upper - lower) * ((rank - below) / (num - below) if num > below else 1.0)
        if upper != float("inf"):
            lower, below = upper, num
    return lower


def mean_of_whole_numbers(buckets: Mapping[str, float]) -> float | None:
    """The mean of observations that are whole numbers from 1 on; in wide buckets they count as their middle."""
    bounds = sorted((float(le), num) for le, num in buckets.items())
    if not bounds or bounds[-1][1] <= 0:
        return None
    total, lower, below = 0.0, 0.0, 0.0
    for upper, num in bounds:
        middle = lower if upper == float("inf") else (lower + 1 + upper) / 2
        total += (num - below) * middle
        lower, below = upper, num
    return total / bounds[-1][1]


def _gains(before: Series, now: Series) -> Series:
    """By how much each series has grown; one that is smaller than before has begun anew, as one that is new has."""
    return {key: value - old if (old := before.get(key, 0.0)) <= value else value for key, value in now.items()}


def _by(series: Series, name: str, label: str, **labels: str) -> dict[str, float]:
    """Sums of the series of this name and these labels, for each value of another label."""
    sums: dict[str, float] = defaultdict(float)
    for (found, pairs), value in series.items():
        if found == name and labels.items() <= (own := dict(pairs)).items():
            sums[own.get(label, "")] += value
    return sums


def _quantiles(buckets: Mapping[str, float]) -> Quantiles | None:
    p50, p95 = (quantile(buckets, share) for share in QUANTILES)
    return None if p50 is None or p95 is None else Quantiles(p50=round(p50, 1), p95=round(p95, 1))


def _refusals(gains: Series) -> dict[str, int]:
    nums: Counter[str] = Counter()
    for name in REFUSALS:
        nums.update({reason: round(num) for reason, num in _by(gains, name, "reason").items()})
    return {reason: num for reason, num in sorted(nums.items()) if num}


def _models(series: Series) -> list[LoadedModel]:
    nums: dict[tuple[str, str], int] = defaultdict(int)
    for (name, pairs), value in series.items():
        if name == LOADED and value:
            labels = dict(pairs)
            nums[labels["model"], labels["version"]] += 1
    return [LoadedModel(name=name, version=version, replicas=num) for (name, version), num in sorted(nums.items())]


def _deployments(look: Look) -> list[DeploymentStatus]:
    targets = _by(look.series, TARGET, "deployment")
    working = _by(look.series, PROCESSING, "deployment")
    waiting = [_by(look.series, name, "deployment") for name in WAITING]
    return [
        DeploymentStatus(
            name=name,
            state=state,
            target=round(targets[name]) if name in targets else None,
            replicas=dict(replicas),
            working=round(working.get(name, 0.0)),
            waiting=round(sum(queue.get(name, 0.0) for queue in waiting)),
        )
        for name, (state, replicas) in sorted(look.states.items())
    ]
