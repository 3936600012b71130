"""Everything that can be wrong with the files of a dataset, and the error that lists all of it at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from roadseg_train.errors import DataError


class ProblemKind(Enum):
    """What is wrong with a file or folder, and how to fix it."""

    UNKNOWN_FORMAT = (
        "is not a dataset folder",
        "expected train/ beside trainannot/ (CamVid, SegNet layout) "
        "or training/image_2/ beside training/gt_image_2/ (KITTI Road)",
    )
    EMPTY = ("has no images with masks", "check that the dataset was unpacked completely")
    NO_MASK_FOLDER = ("has images but no mask folder beside it", "add the masks, or move the images elsewhere")
    NO_MASK = ("has no mask", "add the mask, or remove the image")
    NO_IMAGE = ("is a mask without an image", "add the image, or remove the mask")
    DUPLICATE_NAME = ("differs from another file only in its suffix", "keep one of them")
    UNKNOWN_NAME = (
        "is not named like a KITTI Road mask",
        "expected a name such as um_road_000000.png; rename or remove it",
    )
    UNREADABLE = ("cannot be decoded", "replace the file")
    WRONG_SIZE = ("differs in size from its mask", "replace the file that was changed")
    NOT_A_LABEL_MAP = ("is not a CamVid label map", "convert it to 8 bits, one channel, values 0 to 11")
    NOT_A_ROAD_MASK = (
        "is not a KITTI Road mask",
        "expected 8-bit RGB with only black, red (255, 0, 0) and magenta (255, 0, 255); "
        "copy it from the original dataset",
    )
    LANE_MASK = (
        "is a copy of the lane mask",
        "lane masks mark only the car's own lane; copy the _road_ mask from the original dataset",
    )

    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = what, remedy  # to follow a file name


@dataclass(frozen=True)
class Problem:
    """One file or folder, and what is wrong with it."""

    path: Path
    kind: ProblemKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.kind.what}{_brackets(self.detail)}; {self.kind.remedy}"


class InvalidDataError(DataError):
    """Files of a dataset cannot be used; the message lists every one of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)  # as the only argument, so that the error can be pickled by a worker
        self.problems = problems

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = [f"the data has {len(self.problems)} problems; nothing was started"]
        for kind in ProblemKind:
            files = sorted({(problem.path, problem.detail) for problem in self.problems if problem.kind is kind})
            if files:
                lines.append(f"  {kind.what} ({len(files)}); {kind.remedy}:")
                lines += [f"    {path}{_brackets(detail)}" for path, detail in files]
        return "\n".join(lines)


def _brackets(detail: str) -> str:
    return f" ({detail})" if detail else ""
