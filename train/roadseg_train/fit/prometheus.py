"""Prometheus metrics of a run, exported by Ray, which prefixes each name with `ray_`."""

import threading
from typing import Any

from ray.util.metrics import Counter, Gauge

from roadseg_train.fit.progress import Progress

# Annotated by Ray as a tuple of one, although it takes any.
RUN_TAG: Any = ("run",)
# Ray drops a gauge that is not set for 20 seconds.
REPEAT_EVERY_S = 5.0


class DriverMetrics:
    """Metrics from the driver of a run of this name: that it is running, even without workers, and worker starts."""

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._ended = threading.Event()
        self._running = Gauge(
            "roadseg_train_running", description="1 while the driver of the run is running.", tag_keys=RUN_TAG
        )
        self._starts = Counter(
            "roadseg_train_starts", description="Times the workers of the run were started.", tag_keys=RUN_TAG
        )
        threading.Thread(target=self._repeat, daemon=True).start()

    def _repeat(self) -> None:
        while not self._ended.is_set():
            self._running.set(1, tags=self._tags)
            self._ended.wait(REPEAT_EVERY_S)

    def note_start(self) -> None:
        """Note that workers are started."""
        self._starts.inc(tags=self._tags)

    def note_end(self) -> None:
        """Note the end of the run."""
        self._ended.set()


class WorkerMetrics:
    """Metrics from the first worker of a run of this name: progress and results."""

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._gauges = {
            name: Gauge(f"roadseg_train_{name}", description=description, tag_keys=RUN_TAG)
            for name, description in {
                "step": "Steps done, including those before a resume.",
                "last_step": "Steps in all.",
                "loss": "Loss of the last step.",
                "heldout_iou": "Road IoU of the held-out frames at the newest checkpoint.",
                "images_per_second": "Images per second, over all workers.",
                "data_wait_share": "Share of the recent steps that the first worker spent waiting for data.",
            }.items()
        }
        self._steps = Counter(
            "roadseg_train_steps", description="Steps that this worker took part in.", tag_keys=RUN_TAG
        )
        self._checkpoints = Counter("roadseg_train_checkpoints", description="Checkpoints written.", tag_keys=RUN_TAG)

    def note_step(self, progress: Progress) -> None:
        """Note a step."""
        values = {
            "step": progress.step,
            "last_step": progress.num_steps,
            "loss": progress.loss,
            "heldout_iou": progress.heldout_iou,
            "images_per_second": progress.images_per_s,
            "data_wait_share": progress.wait_share,
        }
        for name, value in values.items():
            if value is not None:
                self._gauges[name].set(value, tags=self._tags)
        self._steps.inc(tags=self._tags)

    def note_checkpoint(self) -> None:
        """Note a checkpoint."""
        self._checkpoints.inc(tags=self._tags)
