"""What roadseg tells Prometheus beside what Ray Serve does; Ray puts `ray_` before each name."""

from typing import Any

from ray.serve import metrics

from roadseg_serve.errors import Problem, RequestError
from roadseg_serve.messages import Answer, ModelName

# Ray Serve's for whole requests, so that no step seems longer than all of them.
STAGE_BOUNDARIES_MS = [1.0, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500, 1000, 2000, 5000, 10_000]
SHARE_BOUNDARIES = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0]
# Ray annotates a tuple of one, and takes any.
MODEL_TAGS: Any = ("model", "version")
BATCH_BOUNDARIES = [1.0, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64]


class Metrics:
    """What the ingress sees: how long each step took, how much road there was, what was refused."""

    def __init__(self) -> None:
        self._stage_latency_ms = metrics.Histogram(
            "roadseg_stage_latency_ms",
            description="Milliseconds that each step of an upload took.",
            boundaries=STAGE_BOUNDARIES_MS,
            tag_keys=("stage",),
        )
        self._road_share = metrics.Histogram(
            "roadseg_road_share",
            description="Share of the picture that is road; when its distribution moves, so did cameras or model.",
            boundaries=SHARE_BOUNDARIES,
            tag_keys=MODEL_TAGS,
        )
        self._refusals = metrics.Counter(
            "roadseg_rejected_uploads",
            description="Requests that were refused, by the kind of problem.",
            tag_keys=("reason",),
        )

    def note_answer(self, answer: Answer) -> None:
        """An upload was answered."""
        for stage, time_s in answer.times_s.items():
            self._stage_latency_ms.observe(1000 * time_s, tags={"stage": stage})
        model = {"model": answer.model.name, "version": answer.model.version}
        self._road_share.observe(answer.road_share, tags=model)

    def note_refusal(self, error: RequestError) -> None:
        """A request was refused."""
        self._refusals.inc(tags={"reason": error.problem.kind})


class RayRefusals:
    """What is refused before it reaches the ingress, where Ray Serve's HTTP server is."""

    def __init__(self) -> None:
        self._refusals = metrics.Counter(
            "roadseg_refused_by_ray",
            description="Requests that Ray Serve refused before they reached the routes, by the kind of problem.",
            tag_keys=("reason",),
        )

    def note(self, problem: Problem) -> None:
        """A request was refused."""
        self._refusals.inc(tags={"reason": problem.kind})


class ModelMetrics:
    """What a replica of the model sees: which version it is, and how full its batches are.

    Args:
        model: the version.
    """

    def __init__(self, model: ModelName) -> None:
        self._tags = {"model": model.name, "version": model.version}
        self._loaded = metrics.Gauge(
            "roadseg_model_loaded",
            description="1 for the model version that a replica has loaded.",
            tag_keys=MODEL_TAGS,
        )
        self._batch_size = metrics.Histogram(
            "roadseg_batch_size",
            description="Frames in one prediction.",
            boundaries=BATCH_BOUNDARIES,
        )

    def note_loaded(self) -> None:
        """The model is there: to be said again and again, as Ray forgets a gauge that was not set for 20 seconds."""
        self._loaded.set(1, tags=self._tags)

    def note_batch(self, num_frames: int) -> None:
        """A batch was predicted."""
        self._batch_size.observe(num_frames)
