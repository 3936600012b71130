"""Frames with their truth, found in the folder forms that people have: CamVid (SegNet form) and KITTI Road.

A target is uint8 in target_HW: 0 void (not counted anywhere), 1 not road, 2 road. Void is zero so that whatever
geometry fills in from outside a picture is void by itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from roadseg_train.data.faults import Fault, Problem
from roadseg_train.errors import FaultyDataError

VOID, NOT_ROAD, ROAD = 0, 1, 2
UNKNOWN_CLASS = 0  # in classes_HW; the classes that CamVid tells apart are 1 to NUM_CLASSES
NUM_CLASSES = 11

UInt8Array = npt.NDArray[np.uint8]
Form = Literal["camvid", "kitti"]

PARTS = ("train", "val", "test")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
NUM_VALUES_SHOWN = 5

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
    """One picture and its mask on disk; `drive` is the recording it is from, in whose order frames are sorted."""

    name: str
    dataset: str
    part: str
    drive: str
    form: Form
    image: Path
    mask: Path

    @property
    def identity(self) -> str:
        """What this frame is wherever its files lie."""
        return f"{self.dataset}/{self.part}/{self.name}"


@dataclass(frozen=True)
class Scan:
    """What a dataset folder holds, by the names of its files."""

    frames: list[Frame]
    faults: list[Fault]
    lane_only: list[Path]  # pictures whose only truth is a lane mask, which is another task


def scan(root: Path) -> Scan:
    """Pair every picture under a dataset folder with its mask, by name; no file is opened.

    CamVid (SegNet form): `train`, `val`, `test` beside `trainannot`, `valannot`, `testannot`; any picture type.
    KITTI Road: `training/image_2` beside `training/gt_image_2`; the `_road_` masks, not the `_lane_` ones.

    Returns:
        The frames, sorted by part, drive and name; the faults; the pictures left out for want of a road mask.
    """
    if (root / "training" / "gt_image_2").is_dir():
        found = _scan_kitti(root)
    elif any((root / f"{part}annot").is_dir() for part in PARTS):
        found = _scan_camvid(root)
    else:
        return Scan([], [Fault(root, Problem.UNKNOWN_FORM)], [])
    if not found.frames and not found.faults:
        found.faults.append(Fault(root, Problem.EMPTY))
    found.frames.sort(key=lambda frame: (frame.part, frame.drive, frame.name))
    return found


def find_frames(root: Path) -> list[Frame]:
    """Every frame with truth under a dataset folder, sorted by part, drive and name.

    Raises:
        FaultyDataError: the folder has no known form, or pictures and masks do not pair up.
    """
    found = scan(root)
    if found.faults:
        raise FaultyDataError(found.faults)
    return found.frames


def read_image(path: Path) -> UInt8Array:
    """Read a picture as RGB: image_HWC, uint8.

    Raises:
        FaultyDataError: the file is missing or cannot be decoded.
    """
    return _decode(path, mode="RGB")


def read_target(frame: Frame) -> UInt8Array:
    """Read the truth of a frame: target_HW, uint8 in {0 void, 1 not road, 2 road}.

    Raises:
        FaultyDataError: the mask is missing, cannot be decoded, or is not in the form of its dataset.
    """
    return _target(_decode(frame.mask, mode=None), frame)


def read_classes(frame: Frame) -> UInt8Array:
    """What each pixel of a frame shows, where its dataset tells: classes_HW, uint8 in {0 unknown, 1 .. NUM_CLASSES}.

    Raises:
        FaultyDataError: the mask is missing, cannot be decoded, or is not in the form of its dataset.
    """
    mask = _decode(frame.mask, mode=None)
    target_HW = _target(mask, frame)
    classes_HW: UInt8Array = CAMVID_CLASS[mask] if frame.form == "camvid" else np.full_like(target_HW, UNKNOWN_CLASS)
    return classes_HW


def read_frame(frame: Frame) -> tuple[UInt8Array, UInt8Array]:
    """Read a frame as (image_HWC, target_HW), both uint8 and of one height and width.

    Raises:
        FaultyDataError: a file is unreadable, or the two differ in size.
    """
    image_HWC, target_HW = read_image(frame.image), read_target(frame)
    check_size(frame, image_HWC, target_HW)
    return image_HWC, target_HW


def check_size(frame: Frame, image_HWC: UInt8Array, target_HW: UInt8Array) -> None:
    """Raise FaultyDataError where a frame's picture and mask differ in height or width."""
    (height, width), (mask_height, mask_width) = image_HWC.shape[:2], target_HW.shape
    if (height, width) != (mask_height, mask_width):
        detail = f"{width}x{height}, and {frame.mask} {mask_width}x{mask_height}"
        raise FaultyDataError([Fault(frame.image, Problem.WRONG_SIZE, detail)])


def _scan_camvid(root: Path) -> Scan:
    found = Scan([], [], [])
    for part in PARTS:
        images = _pictures(root / part, found.faults)
        if images and not (root / f"{part}annot").is_dir():
            found.faults.append(Fault(root / part, Problem.NO_MASK_FOLDER, f"{len(images)} without {part}annot/"))
            continue
        masks = _pictures(root / f"{part}annot", found.faults)
        found.faults.extend(Fault(images[stem], Problem.NO_MASK) for stem in images.keys() - masks.keys())
        found.faults.extend(Fault(masks[stem], Problem.NO_PICTURE) for stem in masks.keys() - images.keys())
        for stem in images.keys() & masks.keys():
            drive = stem.split("_")[0]
            found.frames.append(Frame(stem, "CamVid", part, drive, "camvid", images[stem], masks[stem]))
    return found


def _scan_kitti(root: Path) -> Scan:
    found = Scan([], [], [])
    images = _pictures(root / "training" / "image_2", found.faults)
    with_road, with_lane = set(), set()
    for mask in _pictures(root / "training" / "gt_image_2", found.faults).values():
        # um_road_000000 is the truth of um_000000; um_lane_000000 marks the own lane only and is another task.
        match = re.fullmatch(r"(um|umm|uu)_(road|lane)_(\d{6})", mask.stem)
        if match is None:
            found.faults.append(Fault(mask, Problem.UNKNOWN_NAME))
            continue
        drive, stem = match[1], f"{match[1]}_{match[3]}"
        if stem not in images:
            found.faults.append(Fault(mask, Problem.NO_PICTURE))
        elif match[2] == "lane":
            with_lane.add(stem)
        else:
            with_road.add(stem)
            found.frames.append(Frame(stem, "KITTI Road", "train", drive, "kitti", images[stem], mask))
    for stem in images.keys() - with_road:
        if stem in with_lane:
            found.lane_only.append(images[stem])
        else:
            found.faults.append(Fault(images[stem], Problem.NO_MASK))
    return found


def _pictures(folder: Path, faults: list[Fault]) -> dict[str, Path]:
    """The pictures in a folder by stem; files of one stem are added to the faults. Hidden files are left alone."""
    pictures: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith("."):
            first = pictures.setdefault(path.stem, path)
            if first != path:
                faults.append(Fault(path, Problem.SAME_NAME, f"beside {first.name}"))
    return pictures


def _decode(path: Path, *, mode: str | None) -> npt.NDArray[Any]:
    """The pixels of a file as they are, or converted to a mode of Pillow's."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert(mode) if mode else picture)
    # What Pillow raises for damaged files: most as OSError, broken PNG chunks as the others.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FaultyDataError([Fault(path, Problem.UNREADABLE, str(error))]) from error


def _target(mask: npt.NDArray[Any], frame: Frame) -> UInt8Array:
    return _camvid_target(mask, frame.mask) if frame.form == "camvid" else _kitti_target(mask, frame.mask)


def _camvid_target(label: npt.NDArray[Any], path: Path) -> UInt8Array:
    if label.ndim != 2 or label.dtype != np.uint8:
        raise FaultyDataError([Fault(path, Problem.NO_LABEL_MAP, _describe_pixels(label))])
    if label.max(initial=0) >= CAMVID_NUM_LABELS:
        values = np.unique(label[label >= CAMVID_NUM_LABELS])
        raise FaultyDataError([Fault(path, Problem.NO_LABEL_MAP, f"values {_some(values.tolist())}")])
    target_HW: UInt8Array = CAMVID_TARGET[label]
    return target_HW


def _kitti_target(colour: npt.NDArray[Any], path: Path) -> UInt8Array:
    # Red marks where the truth counts, blue the road. Source: the KITTI Road devkit's readme.
    if colour.ndim != 3 or colour.shape[2] != 3 or colour.dtype != np.uint8:
        raise FaultyDataError([Fault(path, Problem.NO_ROAD_MASK, _describe_pixels(colour))])
    red_HW, green_HW, blue_HW = np.moveaxis(colour, 2, 0)
    black_or_full = ((red_HW == 0) | (red_HW == 255)) & ((blue_HW == 0) | (blue_HW == 255))
    known_HW = black_or_full & (green_HW == 0) & (red_HW >= blue_HW)
    if not known_HW.all():
        colours = [tuple(pixel) for pixel in np.unique(colour[~known_HW], axis=0).tolist()]
        raise FaultyDataError([Fault(path, Problem.NO_ROAD_MASK, f"colours {_some(colours)}")])
    road_HW = np.where(blue_HW > 0, ROAD, NOT_ROAD)
    return np.where(red_HW > 0, road_HW, VOID).astype(np.uint8)


def _describe_pixels(pixels: npt.NDArray[Any]) -> str:
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    return f"{channels} channel{'s' if channels > 1 else ''} of {pixels.dtype}"


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(map(str, values[:NUM_VALUES_SHOWN]))
    return shown + (" and others" if len(values) > NUM_VALUES_SHOWN else "")
