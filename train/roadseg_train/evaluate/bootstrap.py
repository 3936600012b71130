"""Confidence intervals by resampling blocks of consecutive frames.

Neighbouring frames of a video are nearly the same image, so resampling single frames would make intervals too narrow.
Source: the moving-block bootstrap of Künsch 1989, with blocks that do not overlap (Carlstein 1986); percentile
intervals, Efron and Tibshirani 1993.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from pydantic import BaseModel

from roadseg_train.data.dataset import Frame
from roadseg_train.metrics import FloatArray, Histogram, confusion, f1, iou, threshold_level

BLOCK_LENGTH_FRAMES = 10
NUM_RESAMPLES = 1000
SEED = 0
MIN_BLOCKS = 5  # fewer blocks allow too few different resamples


class Interval(BaseModel, extra="forbid", frozen=True):
    """A 95 % interval."""

    low: float
    high: float


class Intervals(BaseModel, extra="forbid", frozen=True):
    """95 % bootstrap intervals of pooled scores, and the settings that made them."""

    num_blocks: int
    block_length_frames: int
    num_resamples: int
    seed: int
    road_iou: Interval
    f1: Interval
    max_f: Interval


def split_into_blocks(frames: Sequence[Frame]) -> list[list[int]]:
    """Split each drive of each part into blocks of about 10 frames, as indices into `frames`.

    Frames must be in the order of their drives. The blocks of a drive differ by at most one frame.
    """
    blocks: list[list[int]] = []
    for _, group in groupby(enumerate(frames), key=lambda item: (item[1].dataset, item[1].part, item[1].drive)):
        indices = [index for index, _ in group]
        num_blocks = max(1, round(len(indices) / BLOCK_LENGTH_FRAMES))
        blocks += [block.tolist() for block in np.array_split(indices, num_blocks)]
    return blocks


def bootstrap(blocks: Sequence[Histogram], threshold: float) -> Intervals | None:
    """Resample whole blocks with replacement and score each resample; None if there are fewer than 5 blocks.

    Args:
        blocks: the pooled counts of each block, (256,).
        threshold: lowest probability that counts as road, in [0, 1].
    """
    if len(blocks) < MIN_BLOCKS:
        return None
    draws = np.random.default_rng(SEED).integers(0, len(blocks), (NUM_RESAMPLES, len(blocks)))
    times_RB = (draws[:, :, None] == np.arange(len(blocks))).sum(axis=1)  # how often each resample contains each block
    road = times_RB @ np.stack([block.road for block in blocks])
    not_road = times_RB @ np.stack([block.not_road for block in blocks])
    counts = confusion(Histogram(road, not_road))
    level = threshold_level(threshold)
    return Intervals(
        num_blocks=len(blocks),
        block_length_frames=BLOCK_LENGTH_FRAMES,
        num_resamples=NUM_RESAMPLES,
        seed=SEED,
        road_iou=_interval(iou(counts)[:, level]),
        f1=_interval(f1(counts)[:, level]),
        max_f=_interval(f1(counts).max(axis=1)),
    )


def _interval(scores: FloatArray) -> Interval:
    low, high = np.percentile(scores, (2.5, 97.5))
    return Interval(low=float(low), high=float(high))
