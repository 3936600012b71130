"""The report of an evaluation: one HTML file with everything inside, to be read, printed and passed on."""

import base64
import io
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from roadseg_train.data.dataset import UInt8Array
from roadseg_train.data.split import meaning
from roadseg_train.evaluate import charts
from roadseg_train.evaluate.calibration import EDGE_PX, NUM_BINS
from roadseg_train.evaluate.cases import Case
from roadseg_train.evaluate.evaluate import Evaluation
from roadseg_train.evaluate.submission import SubmissionPictures

PANEL_WIDTH_PX = 560
JPEG_QUALITY = 82
WORST_DROP = 0.5  # the drop in IoU that has the full colour


def render_report(evaluation: Evaluation, cases: Sequence[Case], submission: SubmissionPictures | None) -> str:
    """The whole page.

    Args:
        evaluation: what metrics.json says.
        cases: the pictures to show.
        submission: what was written for the KITTI server, if anything.
    """
    environment = Environment(
        loader=PackageLoader("roadseg_train.evaluate", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"jpeg": encode_jpeg, "shade": shade}
    calibration, leak = evaluation.calibration, evaluation.leak
    return environment.get_template("report.html.j2").render(
        evaluation=evaluation,
        cases=cases,
        submission=submission,
        split_meaning=meaning(evaluation.split),
        curve=charts.draw_precision_recall(evaluation) if evaluation.overall_detail.kitti else None,
        image_ious=charts.draw_image_ious(evaluation),
        reliability=charts.draw_reliability(calibration) if calibration else None,
        leak_bars=charts.draw_leak(leak, evaluation.overall.road_iou) if leak else None,
        edge_px=EDGE_PX,
        num_bins=NUM_BINS,
    )


def encode_jpeg(image_HWC: UInt8Array) -> str:
    """A picture as a data URI, RGB uint8, made smaller where it is wider than a panel."""
    picture = Image.fromarray(image_HWC)
    picture.thumbnail((PANEL_WIDTH_PX, PANEL_WIDTH_PX))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def shade(drop: float) -> str:
    """The strength of a cell's colour, in per cent, for a drop in IoU."""
    return f"{100 * min(1.0, max(0.0, drop / WORST_DROP)):.0f}%"
