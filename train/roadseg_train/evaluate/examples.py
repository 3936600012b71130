"""The best, median and worst images of an evaluation, drawn for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np

from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID, Frame, UInt8Array, read_frame
from roadseg_train.data.geometry import SizeRule
from roadseg_train.evaluate.evaluate import Evaluation, FrameScore
from roadseg_train.metrics import threshold_level
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.predict import predict

NUM_OF_EACH = 2
# RGB, drawn over the darkened frame.
FOUND, FALSE, MISSED = (60, 200, 90), (230, 60, 50), (60, 110, 240)


@dataclass(frozen=True)
class Example:
    """One image; every panel is RGB uint8 of the frame's own size."""

    label: str  # best, median or worst
    score: FrameScore
    image_HWC: UInt8Array
    truth_HWC: UInt8Array
    prob_HWC: UInt8Array
    errors_HWC: UInt8Array


def choose_examples(evaluation: Evaluation) -> list[tuple[str, int]]:
    """Which images to show, each once: (best | median | worst, index into `evaluation.images`)."""
    order = sorted(range(evaluation.num_images), key=lambda i: evaluation.images[i].road_iou, reverse=True)
    middle = max(0, len(order) // 2 - NUM_OF_EACH // 2)
    groups = {
        "best": order[:NUM_OF_EACH],
        "median": order[middle : middle + NUM_OF_EACH],
        "worst": order[-NUM_OF_EACH:],
    }
    labels: dict[int, str] = {}
    for label, indices in groups.items():
        for index in indices:
            labels.setdefault(index, label)
    return [(label, index) for index, label in labels.items()]


def draw_examples(program: RoadProgram, frames: Sequence[Frame], evaluation: Evaluation) -> list[Example]:
    """Predict the chosen images again and draw them; `frames` are those of the evaluation, in the same order."""
    rule = SizeRule.of(evaluation.config)
    examples = []
    for label, index in choose_examples(evaluation):
        image_HWC, target_HW = read_frame(frames[index])
        prob_HW = predict(program, image_HWC, rule)
        examples.append(
            Example(
                label=label,
                score=evaluation.images[index],
                image_HWC=image_HWC,
                truth_HWC=draw_truth(image_HWC, target_HW),
                prob_HWC=mpl.colormaps["viridis"](prob_HW, bytes=True)[..., :3],
                errors_HWC=draw_errors(image_HWC, target_HW, prob_HW, evaluation.threshold),
            )
        )
    return examples


def draw_truth(image_HWC: UInt8Array, target_HW: UInt8Array) -> UInt8Array:
    """The darkened frame with road in green and void in black, RGB uint8."""
    drawn_HWC = image_HWC // 2
    drawn_HWC[target_HW == ROAD] += np.array(FOUND, dtype=np.uint8) // 2
    drawn_HWC[target_HW == VOID] = 0
    return drawn_HWC


def draw_errors(image_HWC: UInt8Array, target_HW: UInt8Array, prob_HW: UInt8Array, threshold: float) -> UInt8Array:
    """The darkened frame with found road in green, false road in red and missed road in blue, RGB uint8."""
    drawn_HWC = image_HWC // 2
    is_predicted = prob_HW >= threshold_level(threshold)
    for colour, where_HW in (
        (FOUND, is_predicted & (target_HW == ROAD)),
        (FALSE, is_predicted & (target_HW == NOT_ROAD)),
        (MISSED, ~is_predicted & (target_HW == ROAD)),
    ):
        drawn_HWC[where_HW] += np.array(colour, dtype=np.uint8) // 2
    return drawn_HWC
