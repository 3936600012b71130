"""Finding and reading frames with their masks, in CamVid (SegNet layout) and KITTI Road folders.

A target is uint8 in target_HW: 0 void (ignored by losses and scores), 1 not road, 2 road. Void is zero so that padding
outside an image is void by itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from roadseg_train.data.problems import InvalidDataError, Problem, ProblemKind

VOID, NOT_ROAD, ROAD = 0, 1, 2
UNKNOWN_CLASS = 0  # in classes_HW; the CamVid classes are 1 to NUM_CLASSES
NUM_CLASSES = 11

UInt8Array = npt.NDArray[np.uint8]
Form = Literal["camvid", "kitti"]

PARTS = ("train", "val", "test")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

# CamVid label (0 sky, 1 building, 2 pole, 3 road, 4 pavement, 5 tree, 6 sign, 7 fence, 8 car, 9 pedestrian,
# 10 bicyclist, 11 void) -> target. Source: the label table of the SegNet tutorial's evaluation script.
CAMVID_NUM_LABELS = 12
CAMVID_TARGET = np.full(CAMVID_NUM_LABELS, NOT_ROAD, dtype=np.uint8)
CAMVID_TARGET[3] = ROAD
CAMVID_TARGET[11] = VOID
# The same label -> class in {0 unknown, 1 sky, 2 building, .. 11 bicyclist}.
CAMVID_CLASS = np.append(np.arange(1, NUM_CLASSES + 1), UNKNOWN_CLASS).astype(np.uint8)


@dataclass(frozen=True)
class Frame:
    """One image and its mask on disk; `drive` is the recording that it comes from."""

    name: str
    dataset: str
    part: str
    drive: str
    form: Form
    image: Path
    mask: Path

    @property
    def identity(self) -> str:
        """A name that stays the same if the dataset is moved."""
        return f"{self.dataset}/{self.part}/{self.name}"


@dataclass(frozen=True)
class Scan:
    """What a dataset folder contains, judged by file names alone."""

    frames: list[Frame]
    problems: list[Problem]
    lane_only: list[Path]  # images that only have a lane mask, which is a different task


def scan(root: Path) -> Scan:
    """Pair every image in a dataset folder with its mask by name, without opening files.

    CamVid (SegNet layout): `train`, `val`, `test` beside `trainannot`, `valannot`, `testannot`.
    KITTI Road: `training/image_2` beside `training/gt_image_2`; the `_road_` masks, not the `_lane_` masks.
    Frames are sorted by part, drive and name.
    """
    if (root / "training" / "gt_image_2").is_dir():
        found = _scan_kitti(root)
    elif any((root / f"{part}annot").is_dir() for part in PARTS):
        found = _scan_camvid(root)
    else:
        return Scan([], [Problem(root, ProblemKind.UNKNOWN_FORMAT)], [])
    if not found.frames and not found.problems:
        found.problems.append(Problem(root, ProblemKind.EMPTY))
    found.frames.sort(key=lambda frame: (frame.part, frame.drive, frame.name))
    return found


def find_frames(root: Path) -> list[Frame]:
    """The frames of `scan`; raises InvalidDataError if it finds problems."""
    found = scan(root)
    if found.problems:
        raise InvalidDataError(found.problems)
    return found.frames


def read_image(path: Path) -> UInt8Array:
    """Read an image as RGB: image_HWC, uint8; raises InvalidDataError if it cannot be decoded."""
    return _decode(path, mode="RGB")


def read_labels(frame: Frame) -> tuple[UInt8Array, UInt8Array]:
    """Read the mask of a frame as target_HW and classes_HW, uint8 in {0 unknown, 1 .. NUM_CLASSES}.

    All classes are unknown in KITTI Road. Raises InvalidDataError if the mask is missing, damaged or of another format.
    """
    mask = _decode(frame.mask, mode=None)
    if frame.form == "camvid":
        labels_HW = _check_camvid_labels(mask, frame.mask)
        return CAMVID_TARGET[labels_HW], CAMVID_CLASS[labels_HW]
    target_HW = _kitti_target(mask, frame.mask)
    return target_HW, np.full_like(target_HW, UNKNOWN_CLASS)


def read_target(frame: Frame) -> UInt8Array:
    """Read only the target_HW of `read_labels`."""
    return read_labels(frame)[0]


def read_frame(frame: Frame) -> tuple[UInt8Array, UInt8Array]:
    """Read a frame as image_HWC and target_HW; raises InvalidDataError for a bad file, or if the sizes differ."""
    image_HWC, target_HW = read_image(frame.image), read_target(frame)
    check_size(frame, image_HWC, target_HW)
    return image_HWC, target_HW


def check_size(frame: Frame, image_HWC: UInt8Array, target_HW: UInt8Array) -> None:
    """Raise InvalidDataError if the image and the mask of a frame differ in height or width."""
    (height, width), (mask_height, mask_width) = image_HWC.shape[:2], target_HW.shape
    if (height, width) != (mask_height, mask_width):
        detail = f"{width}x{height}, and {frame.mask} {mask_width}x{mask_height}"
        raise InvalidDataError([Problem(frame.image, ProblemKind.WRONG_SIZE, detail)])


def _scan_camvid(root: Path) -> Scan:
    found = Scan([], [], [])
    for part in PARTS:
        images = _images(root / part, found.problems)
        if images and not (root / f"{part}annot").is_dir():
            detail = f"{len(images)} without {part}annot/"
            found.problems.append(Problem(root / part, ProblemKind.NO_MASK_FOLDER, detail))
            continue
        masks = _images(root / f"{part}annot", found.problems)
        found.problems.extend(Problem(images[stem], ProblemKind.NO_MASK) for stem in images.keys() - masks.keys())
        found.problems.extend(Problem(masks[stem], ProblemKind.NO_IMAGE) for stem in masks.keys() - images.keys())
        for stem in images.keys() & masks.keys():
            frame = Frame(stem, "CamVid", part, stem.split("_")[0], "camvid", images[stem], masks[stem])
            found.frames.append(frame)
    return found


def _scan_kitti(root: Path) -> Scan:
    found = Scan([], [], [])
    images = _images(root / "training" / "image_2", found.problems)
    with_road, with_lane = set(), set()
    for mask in _images(root / "training" / "gt_image_2", found.problems).values():
        # um_road_000000 is the mask of um_000000; um_lane_000000 marks only the car's own lane, a different task.
        match = re.fullmatch(r"(um|umm|uu)_(road|lane)_(\d{6})", mask.stem)
        stem = f"{match[1]}_{match[3]}" if match else ""
        if match is None:
            found.problems.append(Problem(mask, ProblemKind.UNKNOWN_NAME))
        elif stem not in images:
            found.problems.append(Problem(mask, ProblemKind.NO_IMAGE))
        elif match[2] == "lane":
            with_lane.add(stem)
        else:
            with_road.add(stem)
            found.frames.append(Frame(stem, "KITTI Road", "train", match[1], "kitti", images[stem], mask))
    found.lane_only.extend(images[stem] for stem in with_lane - with_road)
    unpaired = images.keys() - with_road - with_lane
    found.problems.extend(Problem(images[stem], ProblemKind.NO_MASK) for stem in unpaired)
    return found


def _images(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    """The images in a folder by stem, ignoring hidden files; duplicate stems are added to `problems`."""
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            first = images.setdefault(path.stem, path)
            if first != path:
                problems.append(Problem(path, ProblemKind.DUPLICATE_NAME, f"beside {first.name}"))
    return images


def _decode(path: Path, *, mode: str | None) -> npt.NDArray[Any]:
    """The pixels of a file, converted to a Pillow mode if one is given."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert(mode) if mode else picture)
    # What Pillow raises for damaged files: mostly OSError, and the others for broken PNG chunks.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidDataError([Problem(path, ProblemKind.UNREADABLE, str(error))]) from error


def _check_camvid_labels(labels: npt.NDArray[Any], path: Path) -> UInt8Array:
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise InvalidDataError([Problem(path, ProblemKind.NOT_A_LABEL_MAP, _describe_pixels(labels))])
    if labels.max(initial=0) >= CAMVID_NUM_LABELS:
        values = np.unique(labels[labels >= CAMVID_NUM_LABELS])
        raise InvalidDataError([Problem(path, ProblemKind.NOT_A_LABEL_MAP, f"values {_some(values.tolist())}")])
    return labels


def _kitti_target(colour: npt.NDArray[Any], path: Path) -> UInt8Array:
    # Red marks the labelled area, blue the road. Source: the KITTI Road devkit's readme.
    if colour.ndim != 3 or colour.shape[2] != 3 or colour.dtype != np.uint8:
        raise InvalidDataError([Problem(path, ProblemKind.NOT_A_ROAD_MASK, _describe_pixels(colour))])
    red_HW, green_HW, blue_HW = np.moveaxis(colour, 2, 0)
    known_HW = np.isin(red_HW, (0, 255)) & np.isin(blue_HW, (0, 255)) & (green_HW == 0) & (red_HW >= blue_HW)
    if not known_HW.all():
        colours = [tuple(pixel) for pixel in np.unique(colour[~known_HW], axis=0).tolist()]
        raise InvalidDataError([Problem(path, ProblemKind.NOT_A_ROAD_MASK, f"colours {_some(colours)}")])
    road_HW = np.where(blue_HW > 0, ROAD, NOT_ROAD)
    return np.where(red_HW > 0, road_HW, VOID).astype(np.uint8)


def _describe_pixels(pixels: npt.NDArray[Any]) -> str:
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    return f"{channels} channel{'s' if channels > 1 else ''} of {pixels.dtype}"


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(map(str, values[:5]))
    return shown + (" and others" if len(values) > 5 else "")
