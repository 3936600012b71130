"""The best, median and worst pictures of an evaluation, to be looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np

from roadseg_train.data.dataset import NOT_ROAD, ROAD, Frame, UInt8Array, read_frame
from roadseg_train.data.geometry import SizeRule
from roadseg_train.evaluate.evaluate import Evaluation, FrameScore
from roadseg_train.metrics import threshold_level
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.predict import predict

NUM_OF_EACH = 2
# What the error picture shows over the dimmed frame, RGB: found road, false road, missed road.
FOUND, FALSE, MISSED = (60, 200, 90), (230, 60, 50), (60, 110, 240)


@dataclass(frozen=True)
class Case:
    """One picture; every panel is RGB uint8 (height, width, 3)."""

    label: str  # best, median or worst
    score: FrameScore
    image_HWC: UInt8Array
    truth_HWC: UInt8Array
    prob_HWC: UInt8Array
    errors_HWC: UInt8Array


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


def show_cases(program: RoadProgram, frames: Sequence[Frame], evaluation: Evaluation) -> list[Case]:
    """Predict the chosen pictures again and draw them; `frames` are those of the evaluation, in its order."""
    rule = SizeRule.of(evaluation.config)
    cases = []
    for label, index in choose_cases(evaluation):
        image_HWC, target_HW = read_frame(frames[index])
        prob_HW = predict(program, image_HWC, rule)
        cases.append(
            Case(
                label=label,
                score=evaluation.images[index],
                image_HWC=image_HWC,
                truth_HWC=show_truth(image_HWC, target_HW),
                prob_HWC=mpl.colormaps["viridis"](prob_HW, bytes=True)[..., :3],
                errors_HWC=show_errors(image_HWC, target_HW, prob_HW, evaluation.threshold),
            )
        )
    return cases


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
