"""Evaluation of a run on a named split: scores by drive and the pictures behind them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from roadseg_train.config import TrainConfig
from roadseg_train.dataset import NOT_ROAD, ROAD, Frame, UInt8Array, read_frame
from roadseg_train.errors import RunError
from roadseg_train.geometry import SizeRule
from roadseg_train.metrics import Scores, confusion, iou, score, threshold_level
from roadseg_train.model import RoadProgram
from roadseg_train.predict import ScoredFrame, predict, predict_frames
from roadseg_train.storage import Place

NUM_OF_EACH = 2  # best, median and worst pictures shown
# What the error picture shows over the dimmed frame, RGB: found road, false road, missed road.
FOUND, FALSE, MISSED = (60, 200, 90), (230, 60, 50), (60, 110, 240)


class FrameScore(BaseModel):
    """One picture's own IoU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    drive: str
    road_iou: float


class Evaluation(BaseModel):
    """metrics.json: what was measured, on what, by which weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    created: datetime
    config: TrainConfig
    step: int
    fitted_on: str
    dataset: str
    split: str
    seen_in_training: bool
    threshold: float
    num_images: int
    overall: Scores
    by_drive: dict[str, Scores]
    images: list[FrameScore]


def evaluate_frames(
    program: RoadProgram,
    frames: Sequence[Frame],
    *,
    config: TrainConfig,
    step: int,
    fitted_on: str,
    fit_frames: Sequence[Frame],
    split: str,
    threshold: float,
) -> Evaluation:
    """Predict and score every frame at its own size.

    Args:
        program: in eval mode.
        frames: what to score, at least one.
        config: the configuration that made the program.
        step: the step it was saved at.
        fitted_on: name of the split it was fitted on.
        fit_frames: the frames of that split; an overlap with `frames` is recorded.
        split: name of the split that `frames` are.
        threshold: probability from which a pixel is called road, in [0, 1].

    Raises:
        DataError: a frame cannot be read.
    """
    predicted = predict_frames(program, frames, config)
    scored = list(tqdm(predicted, total=len(frames), unit="image", desc=split, dynamic_ncols=True))
    drives = sorted({frame.drive for frame in frames})
    fitted = {frame.image for frame in fit_frames}
    return Evaluation(
        created=datetime.now(UTC),
        config=config,
        step=step,
        fitted_on=fitted_on,
        dataset=" + ".join(sorted({frame.dataset for frame in frames})),
        split=split,
        seen_in_training=any(frame.image in fitted for frame in frames),
        threshold=threshold,
        num_images=len(frames),
        overall=_score(scored, threshold),
        by_drive={drive: _score([s for s in scored if s.frame.drive == drive], threshold) for drive in drives},
        images=[_frame_score(s, threshold) for s in scored],
    )


def read_evaluation(path: Place) -> Evaluation:
    """Read a metrics.json.

    Raises:
        RunError: there is none, or it is not of this version.
    """
    try:
        return Evaluation.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist; make it with roadseg-train evaluate") from error
    except ValidationError as error:
        raise RunError(f"{path} is no metrics.json of this version ({error}); evaluate again") from error


def choose_cases(evaluation: Evaluation) -> list[tuple[str, int]]:
    """Which pictures to show: (best | median | worst, index into `evaluation.images`), without repeats."""
    order = sorted(range(evaluation.num_images), key=lambda i: evaluation.images[i].road_iou, reverse=True)
    middle = max(0, len(order) // 2 - NUM_OF_EACH // 2)
    groups = {
        "best": order[:NUM_OF_EACH],
        "median": order[middle : middle + NUM_OF_EACH],
        "worst": order[-NUM_OF_EACH:],
    }
    cases: dict[int, str] = {}
    for label, indices in groups.items():
        for index in indices:
            cases.setdefault(index, label)
    return [(label, index) for index, label in cases.items()]


def draw_cases(program: RoadProgram, frames: Sequence[Frame], evaluation: Evaluation, path: Path) -> None:
    """Draw the best, median and worst pictures: image, truth, probability and errors side by side."""
    rule = SizeRule.of(evaluation.config)
    cases = choose_cases(evaluation)
    with mpl.rc_context({"font.size": 8, "savefig.dpi": 110}):
        figure = Figure(figsize=(14, 2.7 * len(cases)), layout="constrained")
        grid = figure.subplots(len(cases), 4, squeeze=False)
        for axes, (label, index) in zip(grid, cases, strict=True):
            image_HWC, target_HW = read_frame(frames[index])
            prob_HW = predict(program, image_HWC, rule)
            found = evaluation.images[index]
            axes[0].imshow(image_HWC)
            axes[0].set_title(f"{label}: {found.name}, IoU {found.road_iou:.3f}")
            axes[1].imshow(show_truth(image_HWC, target_HW))
            axes[1].set_title("truth (void black)")
            axes[2].imshow(prob_HW, cmap="viridis", vmin=0, vmax=255)
            axes[2].set_title("road probability, 0 to 1")
            axes[3].imshow(show_errors(image_HWC, target_HW, prob_HW, evaluation.threshold))
            axes[3].set_title("found green, false red, missed blue")
            for axis in axes:
                axis.set_axis_off()
        figure.savefig(path)


def show_truth(image_HWC: UInt8Array, target_HW: UInt8Array) -> UInt8Array:
    """The dimmed frame with its road in green and its void in black, RGB uint8."""
    shown_HWC = image_HWC // 2
    shown_HWC[target_HW == ROAD] += np.array(FOUND, dtype=np.uint8) // 2
    shown_HWC[(target_HW != ROAD) & (target_HW != NOT_ROAD)] = 0
    return shown_HWC


def show_errors(image_HWC: UInt8Array, target_HW: UInt8Array, prob_HW: UInt8Array, threshold: float) -> UInt8Array:
    """The dimmed frame with found road in green, false road in red and missed road in blue, RGB uint8."""
    shown_HWC = image_HWC // 2
    claimed = prob_HW >= threshold_level(threshold)
    for colour, where in (
        (FOUND, claimed & (target_HW == ROAD)),
        (FALSE, claimed & (target_HW == NOT_ROAD)),
        (MISSED, ~claimed & (target_HW == ROAD)),
    ):
        shown_HWC[where] += np.array(colour, dtype=np.uint8) // 2
    return shown_HWC


def _score(scored: Sequence[ScoredFrame], threshold: float) -> Scores:
    return score([s.counts for s in scored], threshold)


def _frame_score(scored: ScoredFrame, threshold: float) -> FrameScore:
    own_iou = iou(confusion(scored.counts))[threshold_level(threshold)]
    return FrameScore(name=scored.frame.name, drive=scored.frame.drive, road_iou=float(own_iou))
