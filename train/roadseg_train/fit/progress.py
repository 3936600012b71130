"""Progress of a run: the clock of its steps, what is shown meanwhile, and the summary at the end."""

import sys
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import Never

from pydantic import BaseModel
from tqdm import tqdm

SUMMARY = "summary.json"
NUM_RECENT_STEPS = 50  # for rates and the time left
LINE_EVERY_S = 15.0  # in a log


class Totals(BaseModel, extra="forbid"):
    """Times and scores of a run over all its starts; kept in its checkpoints."""

    wait_s: float = 0.0  # waiting for a batch
    compute_s: float = 0.0
    checkpoint_s: float = 0.0  # scoring held-out frames, saving
    best_step: int | None = None
    best_heldout: dict[str, float] = {}
    last_heldout: dict[str, float] = {}

    @property
    def steps_s(self) -> float:
        """Duration of all steps, without checkpoints."""
        return self.wait_s + self.compute_s

    def note_scores(self, step: int, heldout: dict[str, float]) -> None:
        """Remember the scores of a checkpoint; the best has the highest road IoU."""
        self.last_heldout = heldout
        if not self.best_heldout or heldout["road_iou"] > self.best_heldout["road_iou"]:
            self.best_step, self.best_heldout = step, heldout


class Clock:
    """Adds the duration of each step to the totals of a run, and knows the current speed.

    A step is a wait for its batch, in which the device is idle, and the computation, which ends when the loss is known.
    """

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self._recent: deque[tuple[float, float]] = deque(maxlen=NUM_RECENT_STEPS)

    def add_step(self, wait_s: float, compute_s: float) -> None:
        """Add the two parts of a step."""
        self._totals.wait_s += wait_s
        self._totals.compute_s += compute_s
        self._recent.append((wait_s, compute_s))

    @property
    def step_s(self) -> float:
        """Mean duration of the recent steps, at least one."""
        return sum(wait_s + compute_s for wait_s, compute_s in self._recent) / len(self._recent)

    @property
    def wait_share(self) -> float:
        """Share of the recent steps spent waiting for data, in [0, 1]."""
        return sum(wait_s for wait_s, _ in self._recent) / len(self._recent) / self.step_s


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int  # done
    num_steps: int
    loss: float  # of the last step
    heldout_iou: float | None  # road IoU at the last checkpoint
    images_per_s: float  # over all workers
    wait_share: float  # of the recent steps
    left_s: float  # until the last step, at the current speed

    def figures(self) -> str:
        """Everything but the steps, to stand beside a bar."""
        heldout = "" if self.heldout_iou is None else f"held-out IoU {self.heldout_iou:.4f}, "
        speed = f"{self.images_per_s:.1f} images/s ({self.wait_share:.0%} waiting for data)"
        return f"loss {self.loss:.4f}, {heldout}{speed}, {duration(self.left_s)} left"


class ProgressDisplay:
    """Shows progress on stderr: a bar in a terminal, and in a log a line now and then.

    tqdm alone will not do in a log: it never ends a line, and log collectors only pass on complete lines.
    """

    def __init__(self) -> None:
        self._bar: tqdm[Never] | None = None
        self._next_line_s = 0.0

    def show(self, progress: Progress) -> None:
        """Show the progress after a step."""
        done, total = progress.step, progress.num_steps
        if sys.stderr.isatty():
            if self._bar is None:
                form = "{desc} |{bar}| {n_fmt}/{total_fmt}"
                self._bar = tqdm(initial=done - 1, total=total, bar_format=form, dynamic_ncols=True)
            self._bar.set_description(progress.figures(), refresh=False)
            self._bar.update()
        elif time.monotonic() >= self._next_line_s or done == total:
            self._next_line_s = time.monotonic() + LINE_EVERY_S
            print(f"step {done}/{total}: {progress.figures()}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


class Summary(BaseModel, extra="forbid", frozen=True):
    """summary.json: the cost and the result of a run, finished or stopped, over all its starts."""

    stopped: bool  # before the last step
    step: int  # done
    num_steps: int
    num_images: int  # crops seen, over all workers
    duration_s: float  # steps and checkpoints
    images_per_s: float  # during steps
    data_wait_share: float  # of the steps' time
    loss: float | None  # mean since the last checkpoint but one; None if this start had no steps left to do
    best_step: int | None
    best_heldout: dict[str, float]  # when road IoU was highest; empty without held-out frames
    last_heldout: dict[str, float]
    num_workers: int  # at the end
    device: str  # of each worker, and the precision

    def text(self, run: str) -> str:
        """The summary for people."""
        end = f"{'stopped at' if self.stopped else 'done:'} step {self.step} of {self.num_steps}"
        speed = f"{self.images_per_s:.1f} images/s, {self.data_wait_share:.1%} of the time waiting for data"
        lines = [
            f"{end}, {self.num_images} images in {duration(self.duration_s)}",
            f"  speed      {speed}; workers: {self.num_workers}, {self.device}",
        ]
        if self.loss is not None:
            lines.append(f"  loss       {self.loss:.4f}")
        if self.best_heldout:
            lines.append(f"  held out   last: {scores(self.last_heldout)}")
            lines.append(f"             best: {scores(self.best_heldout)}, at step {self.best_step}")
        lines.append(f"  written    {run}: checkpoints, {SUMMARY}, learning curves (tensorboard --logdir {run})")
        return "\n".join(lines)


def scores(heldout: dict[str, float]) -> str:
    """Held-out scores in one line."""
    return f"IoU {heldout['road_iou']:.4f}, F1 {heldout['f1']:.4f}, MaxF {heldout['max_f']:.4f}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as 0:03:20."""
    return str(timedelta(seconds=round(seconds)))
