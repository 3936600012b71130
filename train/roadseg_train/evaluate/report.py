"""The report of an evaluation: a single HTML file that needs nothing else, and the example images in it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID, Frame, UInt8Array, read_frame
from roadseg_train.data.geometry import SizeRule
from roadseg_train.data.split import meaning
from roadseg_train.evaluate import charts
from roadseg_train.evaluate.evaluate import NUM_BINS, Evaluation, FrameScore
from roadseg_train.evaluate.submission import SubmissionImages
from roadseg_train.metrics import threshold_level
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.predict import predict

PANEL_WIDTH_PX = 560
JPEG_QUALITY = 82
WORST_DROP = 0.5  # the drop in IoU that gets the strongest colour
NUM_OF_EACH = 2  # best, median and worst images
# RGB colours, drawn over the darkened frame.
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
    median = order[middle : middle + NUM_OF_EACH]
    labels: dict[int, str] = {}
    for label, group in (("best", order[:NUM_OF_EACH]), ("median", median), ("worst", order[-NUM_OF_EACH:])):
        labels |= {index: label for index in group if index not in labels}
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


def render_report(evaluation: Evaluation, examples: Sequence[Example], submission: SubmissionImages | None) -> str:
    """The page, from an evaluation, its examples, and the images predicted for the KITTI server, if any."""
    environment = Environment(
        loader=PackageLoader("roadseg_train.evaluate", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"jpeg": encode_jpeg, "shade": shade}
    return environment.get_template("report.html.j2").render(
        evaluation=evaluation,
        examples=examples,
        submission=submission,
        split_meaning=meaning(evaluation.split),
        curve=charts.draw_precision_recall(evaluation) if evaluation.overall_detail.kitti else None,
        image_ious=charts.draw_image_ious(evaluation),
        reliability=charts.draw_reliability(evaluation.reliability) if evaluation.reliability else None,
        num_bins=NUM_BINS,
    )


def encode_jpeg(image_HWC: UInt8Array) -> str:
    """An image, RGB uint8, as a JPEG data URI at most as wide as a panel."""
    image = Image.fromarray(image_HWC)
    image.thumbnail((PANEL_WIDTH_PX, PANEL_WIDTH_PX))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def shade(drop: float) -> str:
    """How strongly to colour a cell for a drop in IoU, in per cent."""
    return f"{100 * min(1.0, max(0.0, drop / WORST_DROP)):.0f}%"
