"""The charts of the report, as inline SVG in the page's own text colour, light or dark."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from roadseg_train.evaluate.evaluate import Evaluation, Reliability
from roadseg_train.metrics import Histogram, confusion, threshold_level

BLUE, ORANGE, GREEN, PURPLE, RED, TEAL = "#3b7fd1", "#cf6f12", "#2e9161", "#8e63d6", "#cc4b43", "#1f8f99"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED, TEAL)
# Placeholders in the SVG for colours that the page chooses.
INK, RULE = "#010203", "#040506"
STYLE: dict[Any, Any] = {  # matplotlib types the keys as literals
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,
}


def draw_precision_recall(evaluation: Evaluation) -> str:
    """Precision over recall at all thresholds; the masks must have road."""
    counts = confusion(Histogram(np.array(evaluation.road_at_level), np.array(evaluation.not_road_at_level)))
    found = counts.true_positive > 0
    precision = counts.true_positive / np.maximum(1, counts.true_positive + counts.false_positive)
    recall = counts.true_positive / counts.true_positive[0]
    kitti = evaluation.overall_detail.kitti
    assert kitti is not None
    with _axes("precision-recall") as axes:
        axes.plot(recall[found], precision[found], color=BLUE, linewidth=2)
        best = f"best F1, threshold {kitti.threshold:.3f}"
        axes.plot(kitti.recall, kitti.precision, "D", color=ORANGE, markersize=7, label=best)
        level = threshold_level(evaluation.threshold)
        shown = [kitti.recall, kitti.precision]
        if found[level]:
            axes.plot(recall[level], precision[level], "o", color=GREEN, label=f"threshold {evaluation.threshold:g}")
            shown += [recall[level], precision[level]]
        low = max(0.0, np.floor(10 * min(shown)) / 10 - 0.2)
        axes.set(xlim=(low, 1.01), ylim=(low, 1.01), xlabel="recall", ylabel="precision")
        axes.legend(loc="lower left")
        return _svg(axes)


def draw_image_ious(evaluation: Evaluation) -> str:
    """A histogram of the road IoU of single images, by drive."""
    ious = {d: [image.road_iou for image in evaluation.images if image.drive == d] for d in evaluation.by_drive}
    if len(ious) > len(SERIES):
        ious = {f"{len(ious)} drives": [image.road_iou for image in evaluation.images]}
    low = np.floor(20 * min(image.road_iou for image in evaluation.images)) / 20
    with _axes("image-ious") as axes:
        bins = np.linspace(min(low, 0.95), 1, 21).tolist()
        axes.hist(list(ious.values()), bins=bins, stacked=True, color=SERIES[: len(ious)], label=list(ious))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="road IoU of an image", ylabel="images")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        return _svg(axes)


def draw_reliability(reliability: Reliability) -> str:
    """The share of road over its predicted probability."""
    with _axes("reliability") as axes:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="perfect")
        x, y = zip(*((b.mean_probability, b.road_share) for b in reliability.bins), strict=True)
        axes.plot(x, y, "o-", color=BLUE, markersize=4, label="this run")
        axes.set(xlabel="predicted probability of road", ylabel="share that is road", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left")
        return _svg(axes)


@contextmanager
def _axes(name: str) -> Iterator[Axes]:
    # Without names of their own, two charts of a page would share ids.
    with mpl.rc_context(STYLE | {"svg.hashsalt": name, "svg.id": name}):
        yield Figure(figsize=(5.2, 3.6), layout="constrained").subplots()


def _svg(axes: Axes) -> str:
    file = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor").replace(RULE, "var(--rule)")
