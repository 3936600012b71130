"""What a random split of video frames pretends, beside what a split in blocks says."""

import re
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from roadseg_train.data.dataset import ROAD, Frame, read_target
from roadseg_train.data.geometry import resize_labels
from roadseg_train.data.split import select
from roadseg_train.errors import DataError
from roadseg_train.metrics import confusion, histogram, iou, pool

MIN_FRAMES = 20  # with fewer, neither figure means anything


class Leak(BaseModel):
    """Pooled road IoU under a random split and under one in blocks.

    Copying, without any model, the mask of the nearest fitted frame; and, where a second run was fitted on the random
    split, its network's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    copied_random: float
    copied_blocks: float
    network_random: float | None


def measure_leak(frames: Sequence[Frame], network_random: float | None) -> Leak | None:
    """Measure it on labelled frames.

    Returns:
        None where the training part has fewer than 20 frames, or every drive is a single one that cannot be cut.

    Raises:
        DataError: a mask cannot be read.
    """
    if sum(frame.part == "train" for frame in frames) < MIN_FRAMES:
        return None
    try:
        heldout = select(frames, "heldout")
    except DataError:
        return None
    return Leak(
        copied_random=copy_iou(select(frames, "random-fit"), select(frames, "random-heldout")),
        copied_blocks=copy_iou(select(frames, "fit"), heldout),
        network_random=network_random,
    )


def nearest_frame(frame: Frame, fitted: Sequence[Frame]) -> Frame:
    """The frame in `fitted` that was taken nearest in time: of the same drive where there is one, by its number.

    Of two as near, the earlier.
    """
    number = _number(frame)
    return min(fitted, key=lambda other: (not _same_drive(frame, other), abs(_number(other) - number), _number(other)))


def copy_iou(fitted: Sequence[Frame], heldout: Sequence[Frame]) -> float:
    """Pooled road IoU of copying, for every held-out frame, the mask of the nearest fitted one; its void is no road.

    Raises:
        DataError: a mask cannot be read.
    """
    counts = []
    for frame in heldout:
        target_HW, copied_HW = read_target(frame), read_target(nearest_frame(frame, fitted))
        prob_HW = np.where(resize_labels(copied_HW, *target_HW.shape) == ROAD, 255, 0).astype(np.uint8)
        counts.append(histogram(prob_HW, target_HW))
    return float(iou(confusion(pool(counts)))[255])


def _same_drive(a: Frame, b: Frame) -> bool:
    return (a.dataset, a.drive) == (b.dataset, b.drive)


def _number(frame: Frame) -> int:
    """The last number in a frame's name: its place in the recording."""
    digits = re.findall(r"\d+", frame.name)
    return int(digits[-1]) if digits else 0
