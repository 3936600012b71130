"""Named splits, cut in blocks of consecutive frames: neighbouring frames never stand on both sides of a cut.

The two random splits are the exception: they are there to measure what a leak pretends.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from roadseg_train.data.dataset import Frame
from roadseg_train.errors import DataError

HELDOUT_SHARE = 0.2
GAP_FRAMES = 5  # dropped at the cut: frames a few seconds apart still show the same stretch of road

SPLITS = {
    "fit": "the first 80 % of each training drive: to fit on while choosing",
    "heldout": "the last 20 % of each training drive: to choose by",
    "train": "the whole official training part",
    "val": "the official validation part",
    "trainval": "training and validation part: to fit on once the choices are made",
    "test": "the official test part",
    "without:DRIVE": "training and validation part without one drive, such as without:0006R0",
    "drive:DRIVE": "that drive alone: a street never seen",
    "random-fit": "80 % of training and validation part drawn at random: ONLY to show what such a split pretends",
    "random-heldout": "the other 20 %: leaky, its frames are neighbours of fitted ones",
}

RANDOM_SEED = 0


def other_side(split: str) -> str | None:
    """The split to score on what is fitted on `split`, or None where nothing is held out."""
    kind, _, drive = split.partition(":")
    if kind == "without":
        return f"drive:{drive}"
    return {"fit": "heldout", "random-fit": "random-heldout"}.get(split)


def meaning(split: str) -> str:
    """What a named split is, in words."""
    kind, colon, _ = split.partition(":")
    return SPLITS[f"{kind}:DRIVE" if colon else split]


def select(frames: Sequence[Frame], split: str) -> list[Frame]:
    """The frames of a named split, in the order given.

    Raises:
        DataError: the name is unknown, or the data has no frame of that split.
    """
    kind, _, drive = split.partition(":")
    if kind in ("drive", "without") and drive:
        chosen = [frame for frame in frames if frame.part != "test" and (frame.drive == drive) == (kind == "drive")]
    elif split not in SPLITS:
        raise DataError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    elif split in ("fit", "heldout"):
        chosen = _cut([frame for frame in frames if frame.part == "train"], split)
    elif split in ("random-fit", "random-heldout"):
        chosen = _draw([frame for frame in frames if frame.part in ("train", "val")], split)
    else:
        parts = ("train", "val") if split == "trainval" else (split,)
        chosen = [frame for frame in frames if frame.part in parts]
    if not chosen:
        raise DataError(f"the data has no frame of the split {split!r} ({meaning(split)})")
    return chosen


def _cut(frames: Sequence[Frame], side: str) -> list[Frame]:
    chosen: list[Frame] = []
    for _, group in groupby(frames, key=lambda frame: (frame.dataset, frame.drive)):
        drive = list(group)
        num_heldout = round(len(drive) * HELDOUT_SHARE) or int(len(drive) > 1)
        first_heldout = len(drive) - num_heldout
        gap = min(GAP_FRAMES, first_heldout // 10)  # a drive of a few frames cannot spare five
        chosen += drive[first_heldout:] if side == "heldout" else drive[: first_heldout - gap]
    return chosen


def _draw(frames: Sequence[Frame], side: str) -> list[Frame]:
    order = np.random.default_rng(RANDOM_SEED).permutation(len(frames))
    heldout = set(order[: round(len(frames) * HELDOUT_SHARE)].tolist())
    return [frame for i, frame in enumerate(frames) if (i in heldout) == (side == "random-heldout")]
