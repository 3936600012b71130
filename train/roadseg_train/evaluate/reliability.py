"""Whether a probability of 0.8 is right eight times in ten.

Source: reliability diagram and expected calibration error (ECE), Guo et al. 2017 (arXiv 1706.04599); here of the
probability of road instead of the likelier class, to show both ends.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from roadseg_train.metrics import NUM_LEVELS, Histogram

NUM_BINS = 15


class Bin(BaseModel):
    """The labelled pixels whose probability is in one of 15 equal ranges."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean_probability: float
    road_share: float
    num_pixels: int


class Reliability(BaseModel):
    """Predicted probabilities against the share of road.

    Attributes:
        ece: mean distance between probability and share over all pixels, in [0, 1].
        bins: without the empty ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ece: float
    bins: list[Bin]


def measure_reliability(counts: Histogram) -> Reliability | None:
    """Reliability of the counts (256,) of all images together; None without a labelled pixel."""
    probability = np.arange(NUM_LEVELS) / (NUM_LEVELS - 1)
    number = np.minimum((probability * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    num_pixels = np.bincount(number, counts.road + counts.not_road)
    if not num_pixels.any():
        return None
    filled = num_pixels > 0
    total = num_pixels[filled]
    mean = np.bincount(number, (counts.road + counts.not_road) * probability)[filled] / total
    share = np.bincount(number, counts.road)[filled] / total
    return Reliability(
        ece=float(np.average(np.abs(mean - share), weights=total)),
        bins=[
            Bin(mean_probability=m, road_share=s, num_pixels=int(n)) for m, s, n in zip(mean, share, total, strict=True)
        ],
    )
