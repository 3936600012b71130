"""What can be wrong with the files of a dataset, and how all of it is told at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Problem(Enum):
    """A kind of fault: what is wrong with a file or folder, and what to do about it."""

    UNKNOWN_FORM = (
        "is no dataset folder",
        "expected train/ beside trainannot/ (CamVid, SegNet form) "
        "or training/image_2/ beside training/gt_image_2/ (KITTI Road)",
    )
    EMPTY = ("holds no picture with truth", "check that the dataset was unpacked completely")
    NO_MASK_FOLDER = ("has pictures but no folder of masks beside it", "add the masks, or move the pictures elsewhere")
    NO_MASK = ("has no mask", "add the mask, or remove the picture")
    NO_PICTURE = ("is a mask without picture", "add the picture, or remove the mask")
    SAME_NAME = ("has the name of another file but for the suffix", "keep one of them")
    UNKNOWN_NAME = (
        "has no name of the KITTI Road masks",
        "expected um_road_000000.png or the like; rename or remove it",
    )
    UNREADABLE = ("cannot be decoded", "replace the file")
    WRONG_SIZE = ("is not of its mask's size", "both must be of one size; replace the file that was changed")
    NO_LABEL_MAP = ("is no CamVid label map", "8-bit, one channel, values 0 to 11; convert it to that form")
    NO_ROAD_MASK = (
        "is no KITTI Road mask",
        "8-bit RGB of black, red (255, 0, 0) and magenta (255, 0, 255) only; copy it from the dataset as distributed",
    )
    LANE_MASK = (
        "is a copy of the lane mask",
        "lane masks mark the own lane only; copy the _road_ mask from the dataset as distributed",
    )

    @property
    def what(self) -> str:
        """What is wrong, to be read after a file's name."""
        return self.value[0]

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return self.value[1]


@dataclass(frozen=True)
class Fault:
    """One file or folder, and what is wrong with it."""

    path: Path
    problem: Problem
    detail: str = ""

    def __str__(self) -> str:
        """In one line, with the remedy."""
        return f"{self.path} {self.problem.what}{_brackets(self.detail)}; {self.problem.remedy}"


def describe(faults: Sequence[Fault]) -> str:
    """All faults: one in one line, several by kind with every file's name, so that no second attempt finds more."""
    if len(faults) == 1:
        return str(faults[0])
    lines = [f"the data has {len(faults)} faults; nothing was started"]
    for problem in Problem:
        files = sorted({(fault.path, fault.detail) for fault in faults if fault.problem is problem})
        if files:
            lines.append(f"  {problem.what} ({len(files)}); {problem.remedy}:")
            lines += [f"    {path}{_brackets(detail)}" for path, detail in files]
    return "\n".join(lines)


def _brackets(detail: str) -> str:
    return f" ({detail})" if detail else ""
