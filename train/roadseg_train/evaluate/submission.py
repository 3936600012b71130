"""The files that the KITTI Road server evaluates, for the pictures whose truth it keeps.

The server evaluates in the bird's-eye view: 800x400 pixels of 5 cm, from 6 to 46 m ahead and 10 m to either side. The
devkit's `transform2BEV.py <these files> <testing/calib> <output>` makes that of what is written here, which is in the
camera's perspective, from each picture's calibration; its output, zipped without folders, is what the server takes.

Source: readme and transform2BEV.py of the KITTI Road devkit.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import read_image
from roadseg_train.data.geometry import SizeRule
from roadseg_train.errors import DataError
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.predict import predict

NUM_PICTURES = {"um": 96, "umm": 94, "uu": 100}  # of the whole testing part


@dataclass(frozen=True)
class SubmissionPictures:
    """What the server wants, by name: um_road_000000.png for um_000000.png; and what is not as in the whole set."""

    by_name: dict[str, Path]
    warnings: list[str]


def find_test_pictures(roots: Sequence[Path]) -> SubmissionPictures:
    """The pictures of `testing/image_2`.

    Raises:
        DataError: no folder has any.
    """
    by_name: dict[str, Path] = {}
    others: list[Path] = []
    for path in (path for root in roots for path in sorted((root / "testing" / "image_2").glob("*"))):
        match = re.fullmatch(r"(um|umm|uu)_(\d{6})\.png", path.name)
        if match is not None and int(match[2]) < NUM_PICTURES[match[1]]:
            by_name[f"{match[1]}_road_{match[2]}.png"] = path
        else:
            others.append(path)
    if not by_name:
        raise DataError(
            f"{', '.join(map(str, roots))}: no testing/image_2/um_000000.png or the like; give the KITTI Road folder"
        )
    return SubmissionPictures(by_name, _warnings(by_name, others))


def write_submission(program: RoadProgram, pictures: SubmissionPictures, folder: Path, *, config: TrainConfig) -> None:
    """Write a probability for every picture: 8-bit grey PNG of the picture's own size, 255 is certainly road.

    Args:
        program: in eval mode.
        pictures: of `find_test_pictures`.
        folder: where to; made where it is not there.
        config: the configuration that made the program.

    Raises:
        DataError: a picture cannot be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rule = SizeRule.of(config)
    for name, path in tqdm(pictures.by_name.items(), unit="image", desc="KITTI submission", dynamic_ncols=True):
        Image.fromarray(predict(program, read_image(path), rule)).save(folder / name)


def _warnings(by_name: Collection[str], others: Sequence[Path]) -> list[str]:
    warnings = []
    present = Counter(name.split("_")[0] for name in by_name)
    lacking = [f"{total - present[c]} of {total} {c}" for c, total in NUM_PICTURES.items() if present[c] < total]
    if lacking:
        warnings.append(f"the server wants all {sum(NUM_PICTURES.values())} pictures; missing are {', '.join(lacking)}")
    if others:
        warnings.append(f"left out, as the testing part has no such names: {', '.join(path.name for path in others)}")
    return warnings
