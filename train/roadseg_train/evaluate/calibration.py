"""Whether a probability of 0.8 is right eight times in ten, and the one number that mends it.

Source: temperature scaling and the expected calibration error (ECE), Guo et al. 2017 (arXiv 1706.04599); here over the
probability of road rather than of the likelier class, so that both ends are seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from pydantic import BaseModel, ConfigDict

from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID, UInt8Array
from roadseg_train.data.geometry import SizeRule
from roadseg_train.metrics import FloatArray
from roadseg_train.network.predict import Float32Array

NUM_BINS = 15
EDGE_PX = 5
NUM_SAMPLED = 2048  # pixels of a frame, and again of its edges
INVERSE_TEMPERATURES = (0.05, 20.0)
SMALLEST = 1e-7  # what float32 tells from 0, and from 1


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels: the logit of road, float64 (N,), and whether road is there, bool (N,)."""

    logit: FloatArray
    road: npt.NDArray[np.bool_]


class Bin(BaseModel):
    """The pixels whose probability falls in one of equal ranges."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean_probability: float
    road_share: float
    num_pixels: int


class Reliability(BaseModel):
    """Probabilities beside what was there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ece: float
    edge_ece: float | None  # within 5 pixels of both road and not road; None where there is no such place
    nll: float
    bins: list[Bin]


class Calibration(BaseModel):
    """One temperature, fitted on every other block of frames, and what it does on the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float
    num_frames_fitted: int
    num_frames_shown: int
    num_pixels_per_frame: int
    before: Reliability
    after: Reliability


def sample_pixels(prob_HW: Float32Array, target_HW: UInt8Array, rule: SizeRule, seed: int) -> tuple[Pixels, Pixels]:
    """Draw labelled pixels of a frame, and again of its road edges alone.

    Args:
        prob_HW: of `predict_input`, float32 in [0, 1]: not the 8-bit one, whose ends are too coarse for logits.
        target_HW: at the frame's own size, uint8 in {0 void, 1 not road, 2 road}.
        rule: the size rule between the two; the nearest input pixel speaks for a pixel of the frame.
        seed: decides the draw.
    """
    rng = np.random.default_rng(seed)
    edge_HW = find_edges(target_HW)
    return (
        _draw(prob_HW, target_HW, target_HW != VOID, rule, rng),
        _draw(prob_HW, target_HW, edge_HW, rule, rng),
    )


def find_edges(target_HW: UInt8Array) -> npt.NDArray[np.bool_]:
    """Labelled pixels that have both road and not road at most 5 pixels away, across and down."""
    near_road_HW, near_other_HW = (
        np.asarray(Image.fromarray(target_HW == kind).convert("L").filter(ImageFilter.MaxFilter(2 * EDGE_PX + 1))) > 0
        for kind in (ROAD, NOT_ROAD)
    )
    edge_HW: npt.NDArray[np.bool_] = near_road_HW & near_other_HW & (target_HW != VOID)
    return edge_HW


def join(parts: Sequence[Pixels]) -> Pixels:
    """The pixels of several frames."""
    return Pixels(np.concatenate([p.logit for p in parts]), np.concatenate([p.road for p in parts]))


def calibrate(fitted: Sequence[tuple[Pixels, Pixels]], shown: Sequence[tuple[Pixels, Pixels]]) -> Calibration | None:
    """Fit a temperature on some frames and measure it on others, as both on the same would flatter.

    Args:
        fitted: `sample_pixels` of the frames to fit on.
        shown: `sample_pixels` of the frames to measure on.

    Returns:
        None where one side has no labelled pixel.
    """
    if not any(pixels.road.size for pixels, _ in fitted) or not any(pixels.road.size for pixels, _ in shown):
        return None
    temperature = fit_temperature(join([pixels for pixels, _ in fitted]))
    pixels, edges = join([pixels for pixels, _ in shown]), join([edges for _, edges in shown])
    return Calibration(
        temperature=temperature,
        num_frames_fitted=len(fitted),
        num_frames_shown=len(shown),
        num_pixels_per_frame=NUM_SAMPLED,
        before=measure(pixels, edges, temperature=1.0),
        after=measure(pixels, edges, temperature=temperature),
    )


def fit_temperature(pixels: Pixels) -> float:
    """The temperature T, in [0.05, 20], of the least negative log-likelihood of sigmoid(logit / T).

    The likelihood is convex in 1 / T, so its slope has one zero, which is found by bisection.
    """
    low, high = INVERSE_TEMPERATURES
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        slope = np.mean((_sigmoid(middle * pixels.logit) - pixels.road) * pixels.logit)
        low, high = (middle, high) if slope < 0 else (low, middle)
    return 1 / float(np.sqrt(low * high))


def measure(pixels: Pixels, edges: Pixels, temperature: float) -> Reliability:
    """Reliability of sigmoid(logit / temperature)."""
    logit = pixels.logit / temperature
    bins = _bins(_sigmoid(logit), pixels.road)
    edge_bins = _bins(_sigmoid(edges.logit / temperature), edges.road)
    # -log of the probability of what is there: log(1 + exp(-logit)) for road, log(1 + exp(logit)) for not road
    nll = np.mean(np.logaddexp(0, np.where(pixels.road, -logit, logit)))
    return Reliability(ece=ece(bins), edge_ece=ece(edge_bins) if edge_bins else None, nll=float(nll), bins=bins)


def ece(bins: Sequence[Bin]) -> float:
    """Mean distance between the probability and the share of road, over pixels, in [0, 1]."""
    total = sum(b.num_pixels for b in bins)
    return sum(b.num_pixels * abs(b.mean_probability - b.road_share) for b in bins) / total


def _bins(prob: FloatArray, road: npt.NDArray[np.bool_]) -> list[Bin]:
    """The bins that hold any pixel."""
    number = np.minimum((prob * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    return [
        Bin(
            mean_probability=float(prob[number == i].mean()),
            road_share=float(road[number == i].mean()),
            num_pixels=int((number == i).sum()),
        )
        for i in np.unique(number)
    ]


def _draw(
    prob_HW: Float32Array,
    target_HW: UInt8Array,
    where_HW: npt.NDArray[np.bool_],
    rule: SizeRule,
    rng: np.random.Generator,
) -> Pixels:
    candidates = np.flatnonzero(where_HW)
    drawn = rng.choice(candidates, min(NUM_SAMPLED, candidates.size), replace=False, shuffle=False)
    height, width = target_HW.shape
    scaled_height, scaled_width = rule.scale(height, width)
    row, column = np.divmod(drawn, width)
    prob = prob_HW[
        ((row + 0.5) * scaled_height / height).astype(np.int64),
        ((column + 0.5) * scaled_width / width).astype(np.int64),
    ]
    clipped = np.clip(prob.astype(np.float64), SMALLEST, 1 - SMALLEST)
    return Pixels(np.log(clipped) - np.log1p(-clipped), target_HW.reshape(-1)[drawn] == ROAD)


def _sigmoid(logit: FloatArray) -> FloatArray:
    return np.exp(-np.logaddexp(0, -logit))
