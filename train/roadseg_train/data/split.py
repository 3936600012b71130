"""Named splits. Drives are cut into blocks of consecutive frames, so that neighbours never end up on both sides."""

from collections.abc import Sequence
from itertools import groupby

from roadseg_train.data.dataset import Frame
from roadseg_train.errors import DataError

HELDOUT_SHARE = 0.2
GAP_FRAMES = 5  # dropped at the cut: frames a few seconds apart still show the same stretch of road

SPLITS = {
    "fit": "the first 80 % of each training drive, to fit on while making choices",
    "heldout": "the last 20 % of each training drive, to make choices by",
    "train": "the whole official training part",
    "val": "the official validation part",
    "trainval": "training and validation parts, to fit on once all choices are made",
    "test": "the official test part",
    "without:DRIVE": "training and validation parts without one drive, such as without:0006R0",
    "drive:DRIVE": "that drive only, an unseen street",
}


def other_side(split: str) -> str | None:
    """The split to score on after fitting on `split`, or None if nothing is held out."""
    kind, _, drive = split.partition(":")
    if kind == "without":
        return f"drive:{drive}"
    return "heldout" if split == "fit" else None


def meaning(split: str) -> str:
    """Describe a named split in words."""
    kind, colon, _ = split.partition(":")
    return SPLITS[f"{kind}:DRIVE" if colon else split]


def select(frames: Sequence[Frame], split: str) -> list[Frame]:
    """The frames of a named split, in the given order.

    Raises:
        DataError: the name is unknown, or the split has no frames.
    """
    kind, _, drive = split.partition(":")
    if kind in ("drive", "without") and drive:
        chosen = [frame for frame in frames if frame.part != "test" and (frame.drive == drive) == (kind == "drive")]
    elif split not in SPLITS:
        raise DataError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    elif split in ("fit", "heldout"):
        chosen = _cut([frame for frame in frames if frame.part == "train"], split)
    else:
        parts = ("train", "val") if split == "trainval" else (split,)
        chosen = [frame for frame in frames if frame.part in parts]
    if not chosen:
        raise DataError(f"the data has no frames in the split {split!r} ({meaning(split)})")
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
