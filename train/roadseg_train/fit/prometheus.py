"""What Prometheus is told of a run, where Ray carries it there; Ray puts `ray_` before each name."""

import threading
from typing import Any

from ray.util.metrics import Counter, Gauge

from roadseg_train.fit.progress import Progress

# Ray annotates a tuple of one, and takes any.
RUN_TAG: Any = ("run",)
# Ray forgets a gauge that was not set for 20 seconds.
REPEAT_EVERY_S = 5.0


class DriverMetrics:
    """What the driver knows: that the run is under way, even without workers, and how often those were started.

    Args:
        run: its name.
    """

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._ended = threading.Event()
        self._running = Gauge(
            "roadseg_train_running", description="1 from the start of a run's driver to its end.", tag_keys=RUN_TAG
        )
        self._starts = Counter(
            "roadseg_train_starts", description="Times that the workers of a run were started.", tag_keys=RUN_TAG
        )
        threading.Thread(target=self._repeat, daemon=True).start()

    def _repeat(self) -> None:
        while not self._ended.is_set():
            self._running.set(1, tags=self._tags)
            self._ended.wait(REPEAT_EVERY_S)

    def note_start(self) -> None:
        """The workers are asked for."""
        self._starts.inc(tags=self._tags)

    def note_end(self) -> None:
        """The run is over."""
        self._ended.set()


class WorkerMetrics:
    """What the first worker knows: how far it is, and what comes of it.

    Args:
        run: its name.
    """

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._gauges = {
            name: Gauge(f"roadseg_train_{name}", description=description, tag_keys=RUN_TAG)
            for name, description in {
                "step": "Steps done, those before a continuation too.",
                "last_step": "Steps in all.",
                "loss": "Loss of the last step.",
                "heldout_iou": "Road IoU of the held-out frames, at the newest checkpoint.",
                "images_per_second": "Pictures, over all workers.",
                "data_wait_share": "Share of the recent steps' time in which the first worker waited for data.",
            }.items()
        }
        self._steps = Counter(
            "roadseg_train_steps", description="Steps that this worker took part in.", tag_keys=RUN_TAG
        )
        self._checkpoints = Counter(
            "roadseg_train_checkpoints", description="Checkpoints that were written.", tag_keys=RUN_TAG
        )

    def note_step(self, progress: Progress) -> None:
        """A step is done."""
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
        """A checkpoint is written."""
        self._checkpoints.inc(tags=self._tags)
