"""How a run is getting on: the clock of its steps, the line that is shown meanwhile, and the summary at its end."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

SUMMARY = "summary.json"
NUM_RECENT_STEPS = 50  # what rates and the time left are taken from
LINE_EVERY_S = 15.0  # in a log


class Totals(BaseModel):
    """What a run has taken over all its continuations; kept in its checkpoints."""

    model_config = ConfigDict(extra="forbid")

    wait_s: float = 0.0  # nothing was computed, because the batch was not there yet
    compute_s: float = 0.0
    checkpoint_s: float = 0.0  # held-out frames scored, state saved
    best_step: int | None = None
    best_heldout: dict[str, float] = {}
    last_heldout: dict[str, float] = {}

    @property
    def steps_s(self) -> float:
        """Time of all steps, without checkpoints."""
        return self.wait_s + self.compute_s

    def note_scores(self, step: int, heldout: dict[str, float]) -> None:
        """Remember the scores of a checkpoint; the best one is that of the highest road IoU."""
        self.last_heldout = heldout
        if not self.best_heldout or heldout["road_iou"] > self.best_heldout["road_iou"]:
            self.best_step, self.best_heldout = step, heldout


class Clock:
    """Times the steps and what is between them, and adds it to the totals of the run.

    A step is a wait for its batch and the computation on it. The wait is all the time in which the data keep the device
    idle, because the computation ends with the loss in hand.
    """

    def __init__(self, totals: Totals) -> None:
        self.totals = totals
        self._recent: deque[tuple[float, float]] = deque(maxlen=NUM_RECENT_STEPS)
        self._wait_s = 0.0

    @contextmanager
    def wait(self) -> Iterator[None]:
        """While the batch of a step is waited for."""
        started = time.perf_counter()
        yield
        self._wait_s = time.perf_counter() - started
        self.totals.wait_s += self._wait_s

    @contextmanager
    def compute(self) -> Iterator[None]:
        """While a step is computed, after its wait."""
        started = time.perf_counter()
        yield
        compute_s = time.perf_counter() - started
        self.totals.compute_s += compute_s
        self._recent.append((self._wait_s, compute_s))

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """While held-out frames are scored and the state is saved."""
        started = time.perf_counter()
        yield
        self.totals.checkpoint_s += time.perf_counter() - started

    @property
    def step_s(self) -> float:
        """Mean duration of the recent steps; there must be one."""
        return sum(wait_s + compute_s for wait_s, compute_s in self._recent) / len(self._recent)

    @property
    def wait_share(self) -> float:
        """The part of the recent steps that was spent waiting for data, in [0, 1]."""
        return sum(wait_s for wait_s, _ in self._recent) / len(self._recent) / self.step_s


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        step: how many steps are done.
        num_steps: of how many.
        loss: of the last step.
        heldout_iou: road IoU of the last checkpoint's held-out frames, where there was one.
        images_per_s: pictures, over all workers.
        wait_share: part of the steps' time that was spent waiting for data.
        left_s: until the last step, at the present speed.
    """

    step: int
    num_steps: int
    loss: float
    heldout_iou: float | None
    images_per_s: float
    wait_share: float
    left_s: float

    def figures(self) -> str:
        """All but the steps, in the words that fit beside a bar."""
        heldout = "" if self.heldout_iou is None else f"held-out IoU {self.heldout_iou:.4f}, "
        speed = f"{self.images_per_s:.1f} images/s ({self.wait_share:.0%} waiting for data)"
        return f"loss {self.loss:.4f}, {heldout}{speed}, {duration(self.left_s)} left"

    def line(self) -> str:
        """All of it, for a log."""
        return f"step {self.step}/{self.num_steps}: {self.figures()}"


class Summary(BaseModel):
    """summary.json: what a run took and what came of it, at its end or where it was stopped.

    Attributes:
        stopped: it was asked to stop before the last step.
        step: steps done of `num_steps`.
        num_images: crops seen, over all workers.
        duration_s: of all continuations together, from the first step: steps and checkpoints.
        images_per_s: while stepping.
        data_wait_share: part of the steps' time that was spent waiting for data.
        loss: mean of the steps that the last checkpoint ended; None where this continuation had no step left to do.
        best_step: where `best_heldout` was.
        best_heldout: scores of the held-out frames where road IoU was highest; empty where there are no such frames.
        last_heldout: the same of the last checkpoint that was scored.
        num_workers: at the end.
        device: what each worker computed on, and in which precision.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stopped: bool
    step: int
    num_steps: int
    num_images: int
    duration_s: float
    images_per_s: float
    data_wait_share: float
    loss: float | None
    best_step: int | None
    best_heldout: dict[str, float]
    last_heldout: dict[str, float]
    num_workers: int
    device: str

    def text(self, run: str) -> str:
        """For a person, with where everything is."""
        lines = [
            f"{'stopped at' if self.stopped else 'done:'} step {self.step} of {self.num_steps}, "
            f"{self.num_images} pictures in {duration(self.duration_s)}",
            f"  speed      {self.images_per_s:.1f} images/s, {self.data_wait_share:.1%} of it waiting for data; "
            f"workers: {self.num_workers}, {self.device}",
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
    """Hours, minutes and seconds, as 0:03:20."""
    return str(timedelta(seconds=round(seconds)))


class Bar(Protocol):
    """What is asked of a progress bar; tqdm and Ray's distributed twin of it have it."""

    def set_description(self, desc: str) -> None:
        """Say what is going on."""

    def update(self, n: int) -> Any:
        """Move on by `n` steps."""

    def close(self) -> None:
        """Leave the bar as it is."""


class BarDisplay:
    """Shows progress in a terminal, as a bar.

    Args:
        make_bar: makes it, from the steps done and the steps in all.
    """

    def __init__(self, make_bar: Callable[[int, int], Bar]) -> None:
        self._make_bar = make_bar
        self._bar: Bar | None = None

    def show(self, progress: Progress) -> None:
        """Move the bar to this step."""
        if self._bar is None:
            self._bar = self._make_bar(progress.step - 1, progress.num_steps)
        self._bar.set_description(progress.figures())
        self._bar.update(1)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


class LineDisplay:
    """Shows progress in a log: a line now and then, and one for the last step."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def show(self, progress: Progress) -> None:
        """Print a line to stderr if one is due."""
        now_s = time.monotonic()
        if now_s >= self._next_s or progress.step == progress.num_steps:
            self._next_s = now_s + LINE_EVERY_S
            print(progress.line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is left open."""


def display(make_bar: Callable[[int, int], Bar] | None) -> BarDisplay | LineDisplay:
    """A bar where there is a terminal for one, else lines."""
    return LineDisplay() if make_bar is None else BarDisplay(make_bar)
