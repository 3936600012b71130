"""The metrics that roadseg adds to those of Ray Serve; Ray puts `ray_` before each name."""

from typing import Any

from ray.serve import metrics

from roadseg_serve.errors import Problem, RequestError
from roadseg_serve.messages import Answer, ModelName

# The buckets of Ray Serve for whole requests, so that no step seems longer than its request.
STAGE_BOUNDARIES_MS = [1.0, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500, 1000, 2000, 5000, 10_000]
SHARE_BOUNDARIES = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0]
# Ray's annotation says one tag, but it takes several.
MODEL_TAGS: Any = ("model", "version")
BATCH_BOUNDARIES = [1.0, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64]


class Metrics:
    """Metrics of the ingress: time of each step, share of road, refused requests."""

    def __init__(self) -> None:
        self._stage_latency_ms = metrics.Histogram(
            "roadseg_stage_latency_ms",
            description="Milliseconds that each step of an upload took.",
            boundaries=STAGE_BOUNDARIES_MS,
            tag_keys=("stage",),
        )
        self._road_share = metrics.Histogram(
            "roadseg_road_share",
            description="Share of the picture that is road; its distribution shifts when cameras or the model change.",
            boundaries=SHARE_BOUNDARIES,
            tag_keys=MODEL_TAGS,
        )
        self._refusals = metrics.Counter(
            "roadseg_rejected_uploads", description="Refused requests, by kind of problem.", tag_keys=("reason",)
        )

    def note_answer(self, answer: Answer) -> None:
        """Record an answered upload."""
        for stage, time_s in answer.times_s.items():
            self._stage_latency_ms.observe(1000 * time_s, tags={"stage": stage})
        model = {"model": answer.model.name, "version": answer.model.version}
        self._road_share.observe(answer.road_share, tags=model)

    def note_refusal(self, error: RequestError) -> None:
        """Record a refused request."""
        self._refusals.inc(tags={"reason": error.problem.kind})


class RayRefusals:
    """Metrics of Ray Serve's HTTP server: requests refused before they reach the ingress."""

    def __init__(self) -> None:
        self._refusals = metrics.Counter(
            "roadseg_refused_by_ray",
            description="Requests that Ray Serve refused before they reached the routes, by kind of problem.",
            tag_keys=("reason",),
        )

    def note(self, problem: Problem) -> None:
        """Record a refused request."""
        self._refusals.inc(tags={"reason": problem.kind})


class ModelMetrics:
    """Metrics of a replica of the model: its version and its batch sizes."""

    def __init__(self, model: ModelName) -> None:
        self._tags = {"model": model.name, "version": model.version}
        self._loaded = metrics.Gauge(
            "roadseg_model_loaded",
            description="1 for the model version that a replica has loaded.",
            tag_keys=MODEL_TAGS,
        )
        self._batch_size = metrics.Histogram(
            "roadseg_batch_size", description="Frames in one prediction.", boundaries=BATCH_BOUNDARIES
        )

    def note_loaded(self) -> None:
        """Report the model; must be repeated, because Ray drops a gauge that was not set for 20 seconds."""
        self._loaded.set(1, tags=self._tags)

    def note_batch(self, num_frames: int) -> None:
        """Record a predicted batch."""
        self._batch_size.observe(num_frames)
