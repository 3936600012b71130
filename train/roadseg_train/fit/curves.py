"""Learning curves for TensorBoard."""

import tempfile
import warnings
from pathlib import Path

from roadseg_train.fit.progress import Totals
from roadseg_train.storage.path import StoragePath

FOLDER = "tensorboard"
EVERY_STEPS = 10


class Curves:
    """The curves of one start of a run, written to a local folder and uploaded at each checkpoint.

    Each start adds a file. It invalidates what earlier files hold from its first step on (TensorBoard's purge step), so
    a resumed run shows as one line.
    `step` is the number of steps done before; `totals` are the run's own, which grow with each step.
    """

    def __init__(self, run: StoragePath, step: int, batch_size: int, totals: Totals) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from its own imports
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # slow; only the first worker needs it

        self._run, self._batch_size, self._totals = run, batch_size, totals
        self._folder = tempfile.TemporaryDirectory()
        self._writer = SummaryWriter(self._folder.name, purge_step=step + 1)
        self._recent_losses: list[dict[str, float]] = []
        self._last_point = totals.model_copy()

    def close(self) -> None:
        """Remove the local folder."""
        self._writer.close()
        self._folder.cleanup()

    def after_step(self, step: int, losses: dict[str, float], *, learning_rate: float, last: bool) -> None:
        """Add a point to each curve every few steps and at the last one; losses are averaged since the last point."""
        self._recent_losses.append(losses)
        if step % EVERY_STEPS and not last:
            return
        count, steps_s = len(self._recent_losses), self._totals.steps_s - self._last_point.steps_s
        values = {name: sum(each[name] for each in self._recent_losses) / count for name in losses} | {
            "learning_rate": learning_rate,
            "images_per_s": self._batch_size * count / steps_s,
            "data_wait_share": (self._totals.wait_s - self._last_point.wait_s) / steps_s,
        }
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)
        self._recent_losses.clear()
        self._last_point = self._totals.model_copy()

    def after_checkpoint(self, step: int, scores: dict[str, float]) -> None:
        """Add the held-out scores and upload all curves."""
        for name, value in scores.items():
            self._writer.add_scalar(f"heldout/{name}", value, step)
        self._writer.flush()
        self._run.upload(Path(self._folder.name), FOLDER)
