"""The report of an evaluation: a single HTML file that needs nothing else."""

import base64
import io
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from roadseg_train.data.dataset import UInt8Array
from roadseg_train.data.split import meaning
from roadseg_train.evaluate import charts
from roadseg_train.evaluate.evaluate import Evaluation
from roadseg_train.evaluate.examples import Example
from roadseg_train.evaluate.reliability import NUM_BINS
from roadseg_train.evaluate.submission import SubmissionImages

PANEL_WIDTH_PX = 560
JPEG_QUALITY = 82
WORST_DROP = 0.5  # the drop in IoU that gets the strongest colour


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
