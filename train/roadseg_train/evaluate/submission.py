"""The files that the KITTI Road server evaluates, for the test images whose masks it keeps.

The server evaluates in bird's-eye view: 800x400 pixels of 5 cm, from 6 to 46 m ahead and 10 m to either side. These
files are in the camera's perspective; `transform2BEV.py <these files> <testing/calib> <output>` of the devkit converts
them. Upload a zip of its output, without folders.

Source: readme and transform2BEV.py of the KITTI Road devkit.
"""

import re
from collections import Counter
from collections.abc import Sequence
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

NUM_IMAGES = {"um": 96, "umm": 94, "uu": 100}  # in the official test set


@dataclass(frozen=True)
class SubmissionImages:
    """Images by their name in the submission, such as um_road_000000.png for um_000000.png, and what is missing."""

    by_name: dict[str, Path]
    warnings: list[str]


def find_test_images(roots: Sequence[Path]) -> SubmissionImages:
    """The images of `testing/image_2`.

    Raises:
        DataError: no folder has any.
    """
    by_name: dict[str, Path] = {}
    others: list[Path] = []
    for path in (path for root in roots for path in sorted((root / "testing" / "image_2").glob("*"))):
        match = re.fullmatch(r"(um|umm|uu)_(\d{6})\.png", path.name)
        if match is not None and int(match[2]) < NUM_IMAGES[match[1]]:
            by_name[f"{match[1]}_road_{match[2]}.png"] = path
        else:
            others.append(path)
    if not by_name:
        raise DataError(f"{', '.join(map(str, roots))}: no testing/image_2/um_000000.png; use the KITTI Road folder")
    warnings = []
    present = Counter(name.split("_")[0] for name in by_name)
    missing = [f"{total - present[c]} of {total} {c}" for c, total in NUM_IMAGES.items() if present[c] < total]
    if missing:
        warnings.append(f"the server needs all {sum(NUM_IMAGES.values())} images; missing are {', '.join(missing)}")
    if others:
        warnings.append(f"ignored, because the test set has no such names: {', '.join(path.name for path in others)}")
    return SubmissionImages(by_name, warnings)


def write_submission(program: RoadProgram, images: SubmissionImages, folder: Path, *, config: TrainConfig) -> None:
    """Write the probability of each image into a folder: 8-bit grey PNG of the image's own size, 255 is certain road.

    Raises:
        DataError: an image cannot be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rule = SizeRule.of(config)
    for name, path in tqdm(images.by_name.items(), unit="image", desc="KITTI submission", dynamic_ncols=True):
        Image.fromarray(predict(program, read_image(path), rule)).save(folder / name)
