"""Prometheus metrics of a run, exported by Ray, which prefixes each name with `ray_`."""

import threading
from typing import Any

from ray.util.metrics import Counter, Gauge

from roadseg_train.fit.progress import Progress

RUN_TAG: Any = ("run",)  # annotated by Ray as a tuple of one, although it takes any
REPEAT_EVERY_S = 5.0  # Ray drops a gauge that is not set for 20 seconds


class DriverMetrics:
    """Metrics from the driver of a run of this name: that it is running, even without workers, and worker starts."""

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._ended = threading.Event()
        self._running = _gauge("running", "1 while the driver of the run is running.")
        self._starts = _counter("starts", "Times the workers of the run were started.")
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
        self._gauges = {  # by the field of Progress
            "step": _gauge("step", "Steps done, including those before a resume."),
            "num_steps": _gauge("last_step", "Steps in all."),
            "loss": _gauge("loss", "Loss of the last step."),
            "heldout_iou": _gauge("heldout_iou", "Road IoU of the held-out frames at the newest checkpoint."),
            "images_per_s": _gauge("images_per_second", "Images per second, over all workers."),
            "wait_share": _gauge(
                "data_wait_share", "Share of the recent steps spent waiting for data by the first worker."
            ),
        }
        self._steps = _counter("steps", "Steps that this worker took part in.")
        self._checkpoints = _counter("checkpoints", "Checkpoints written.")

    def note_step(self, progress: Progress) -> None:
        """Note a step."""
        for field, gauge in self._gauges.items():
            if (value := getattr(progress, field)) is not None:
                gauge.set(value, tags=self._tags)
        self._steps.inc(tags=self._tags)

    def note_checkpoint(self) -> None:
        """Note a checkpoint."""
        self._checkpoints.inc(tags=self._tags)


def _gauge(name: str, description: str) -> Gauge:
    return Gauge(f"roadseg_train_{name}", description=description, tag_keys=RUN_TAG)


def _counter(name: str, description: str) -> Counter:
    return Counter(f"roadseg_train_{name}", description=description, tag_keys=RUN_TAG)
