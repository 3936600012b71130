"""Learning curves, as TensorBoard reads them."""

import warnings
from pathlib import Path

FOLDER = "tensorboard"


class Curves:
    """Curves of one start of a run, in a local folder of their own.

    Each start adds a file to those of the starts before it. It declares whatever they hold from its first step on void
    (TensorBoard's purge step), so that a continued run is one line without overlap.

    Args:
        folder: where to write, in the local file system.
        step: how many steps were done before.
    """

    def __init__(self, folder: Path, step: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its own imports
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # slow; the first worker alone needs it

        self.folder = folder
        self._writer = SummaryWriter(folder, purge_step=step + 1)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add a point to each curve; `step` counts the steps that are done."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write all points to the folder."""
        self._writer.flush()

    def close(self) -> None:
        """Write all points and end."""
        self._writer.close()
