"""The charts of the report, each as an inline SVG that takes the page's own text colour, light or dark."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from roadseg_train.evaluate.calibration import Calibration
from roadseg_train.evaluate.evaluate import Evaluation
from roadseg_train.evaluate.leak import Leak
from roadseg_train.metrics import Histogram, confusion, threshold_level

BLUE, ORANGE, GREEN, PURPLE, RED, TEAL = "#3b7fd1", "#cf6f12", "#2e9161", "#8e63d6", "#cc4b43", "#1f8f99"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED, TEAL)
# Stand-ins for what the page decides; replaced in the finished SVG.
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


class Chart:
    """One set of axes, and the SVG of it once it is drawn."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = ""


def draw_precision_recall(evaluation: Evaluation) -> str:
    """Precision over recall at all thresholds, with KITTI's working point and the threshold in use."""
    counts = confusion(Histogram(np.array(evaluation.road_at_level), np.array(evaluation.not_road_at_level)))
    found = counts.true_positive > 0
    precision = counts.true_positive[found] / (counts.true_positive + counts.false_positive)[found]
    recall = counts.true_positive[found] / counts.true_positive[0]
    with _chart("precision-recall", 5.2, 3.6) as chart:
        axes, kitti = chart.axes, evaluation.overall_detail.kitti
        assert kitti is not None  # the caller draws no curve where there is no road
        axes.plot(recall, precision, color=BLUE, linewidth=2)
        axes.plot(
            kitti.recall, kitti.precision, "D", color=ORANGE, markersize=7, label=f"best F1, at {kitti.threshold:.3f}"
        )
        level = threshold_level(evaluation.threshold)
        shown = [kitti.recall, kitti.precision]
        if found[level]:
            at = np.count_nonzero(found[:level])
            axes.plot(recall[at], precision[at], "o", color=GREEN, label=f"threshold {evaluation.threshold:g}")
            shown += [recall[at], precision[at]]
        low = max(0.0, np.floor(10 * min(shown)) / 10 - 0.2)
        axes.set(xlim=(low, 1.01), ylim=(low, 1.01), xlabel="recall", ylabel="precision")
        axes.legend(loc="lower left")
    return chart.svg


def draw_image_ious(evaluation: Evaluation) -> str:
    """How many pictures of each drive have which road IoU."""
    by_drive = {
        drive: [image.road_iou for image in evaluation.images if image.drive == drive] for drive in evaluation.by_drive
    }
    if len(by_drive) > len(SERIES):
        by_drive = {f"{len(by_drive)} drives": [image.road_iou for image in evaluation.images]}
    low = np.floor(20 * min(image.road_iou for image in evaluation.images)) / 20
    with _chart("image-ious", 5.2, 3.6) as chart:
        chart.axes.hist(
            list(by_drive.values()),
            bins=np.linspace(min(low, 0.95), 1, 21).tolist(),
            stacked=True,
            color=SERIES[: len(by_drive)],
            label=list(by_drive),
        )
        chart.axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        chart.axes.set(xlabel="road IoU of a picture", ylabel="pictures")
        chart.axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return chart.svg


def draw_reliability(calibration: Calibration) -> str:
    """The share of road over the probability of it, before and after the temperature."""
    with _chart("reliability", 5.2, 3.6) as chart:
        chart.axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="as it should be")
        for reliability, colour, label in (
            (calibration.before, ORANGE, "as it is"),
            (calibration.after, BLUE, f"divided by {calibration.temperature:.2f}"),
        ):
            x, y = zip(*((b.mean_probability, b.road_share) for b in reliability.bins), strict=True)
            chart.axes.plot(x, y, "o-", color=colour, markersize=4, label=label)
        chart.axes.set(xlabel="probability of road", ylabel="share that is road", xlim=(0, 1), ylim=(0, 1))
        chart.axes.legend(loc="upper left")
    return chart.svg


def draw_leak(leak: Leak, network_blocks: float) -> str:
    """Bars in pairs: what a random split claims, and what blocks say."""
    pairs = [("no model: nearest mask copied", leak.copied_random, leak.copied_blocks)]
    if leak.network_random is not None:
        pairs.append(("this recipe's network", leak.network_random, network_blocks))
    names, claimed, honest = zip(*pairs, strict=True)
    rows = np.arange(len(pairs))
    with _chart("leak", 7.2, 1.1 + 0.8 * len(pairs)) as chart:
        for offset, values, colour, label in (
            (-0.19, claimed, RED, "claimed by a random split"),
            (0.19, honest, GREEN, "said by blocks held out"),
        ):
            bars = chart.axes.barh(rows + offset, values, height=0.34, color=colour, label=label)
            chart.axes.bar_label(bars, fmt="%.3f", padding=3)
        chart.axes.set(yticks=rows, yticklabels=names, xlim=(0, 1.1), xlabel="road IoU")
        chart.axes.invert_yaxis()
        chart.axes.grid(visible=False, axis="y")
        chart.axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1), ncols=2)
    return chart.svg


@contextmanager
def _chart(name: str, width_in: float, height_in: float) -> Iterator[Chart]:
    with mpl.rc_context():
        mpl.rcParams.update(STYLE)
        mpl.rcParams["svg.hashsalt"] = mpl.rcParams["svg.id"] = name  # two charts in a page share no id
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        chart = Chart(figure.subplots())
        yield chart
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(RULE, "var(--rule)")
    chart.svg = svg
