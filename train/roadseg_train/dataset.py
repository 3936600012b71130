"""Frames with their truth, found in the folder forms that people have: CamVid (SegNet form) and KITTI Road.

A target is uint8 in target_HW: 0 void (not counted anywhere), 1 not road, 2 road. Void is zero so that whatever
geometry fills in from outside a picture is void by itself.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from roadseg_train.errors import DataError

VOID, NOT_ROAD, ROAD = 0, 1, 2
UNKNOWN_CLASS = 0  # in classes_HW; the classes that CamVid tells apart are 1 to NUM_CLASSES
NUM_CLASSES = 11

UInt8Array = npt.NDArray[np.uint8]
Form = Literal["camvid", "kitti"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")

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


def find_frames(root: Path) -> list[Frame]:
    """Every frame with truth under a dataset folder, sorted by part, drive and name.

    CamVid (SegNet form): `train`, `val`, `test` beside `trainannot`, `valannot`, `testannot`; any picture type.
    KITTI Road: `training/image_2` beside `training/gt_image_2`; the `_road_` masks, not the `_lane_` ones.

    Raises:
        DataError: the folder has neither form, or a picture has no mask.
    """
    if (root / "training" / "gt_image_2").is_dir():
        frames = _find_kitti(root)
    elif any((root / f"{part}annot").is_dir() for part in ("train", "val", "test")):
        frames = _find_camvid(root)
    else:
        raise DataError(
            f"{root} is no dataset folder: expected train/ beside trainannot/ (CamVid, SegNet form) "
            "or training/image_2/ beside training/gt_image_2/ (KITTI Road)"
        )
    if not frames:
        raise DataError(f"{root} holds no pictures with truth; check that the dataset was unpacked completely")
    return sorted(frames, key=lambda frame: (frame.part, frame.drive, frame.name))


def read_image(path: Path) -> UInt8Array:
    """Read a picture as RGB: image_HWC, uint8.

    Raises:
        DataError: the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); replace the file") from error


def read_target(frame: Frame) -> UInt8Array:
    """Read the truth of a frame: target_HW, uint8 in {0 void, 1 not road, 2 road}.

    Raises:
        DataError: the mask is missing, cannot be decoded, or is not in the form of its dataset.
    """
    try:
        with Image.open(frame.mask) as picture:
            mask: npt.NDArray[Any] = np.asarray(picture)
    except OSError as error:
        raise DataError(f"{frame.mask} cannot be read as a mask ({error}); replace the file") from error
    return _camvid_target(mask, frame.mask) if frame.form == "camvid" else _kitti_target(mask, frame.mask)


def read_classes(frame: Frame) -> UInt8Array:
    """What each pixel of a frame shows, where its dataset tells: classes_HW, uint8 in {0 unknown, 1 .. NUM_CLASSES}.

    Raises:
        DataError: the mask is missing, cannot be decoded, or is not in the form of its dataset.
    """
    target_HW = read_target(frame)
    if frame.form == "kitti":
        return np.full_like(target_HW, UNKNOWN_CLASS)
    with Image.open(frame.mask) as picture:
        classes_HW: UInt8Array = CAMVID_CLASS[np.asarray(picture)]
    return classes_HW


def read_frame(frame: Frame) -> tuple[UInt8Array, UInt8Array]:
    """Read a frame as (image_HWC, target_HW), both uint8 and of one height and width.

    Raises:
        DataError: a file is unreadable, or the two differ in size.
    """
    image_HWC, target_HW = read_image(frame.image), read_target(frame)
    if image_HWC.shape[:2] != target_HW.shape:
        raise DataError(
            f"{frame.image} is {image_HWC.shape[1]}x{image_HWC.shape[0]} but its mask {frame.mask} is "
            f"{target_HW.shape[1]}x{target_HW.shape[0]}; they must be of one size"
        )
    return image_HWC, target_HW


def _find_camvid(root: Path) -> list[Frame]:
    frames = []
    for part in ("train", "val", "test"):
        masks = {path.stem: path for path in _pictures(root / f"{part}annot")}
        for image in _pictures(root / part):
            if image.stem not in masks:
                raise DataError(f"{image} has no mask in {root / f'{part}annot'}; add it or remove the picture")
            drive = image.stem.split("_")[0]
            frames.append(Frame(image.stem, "CamVid", part, drive, "camvid", image, masks[image.stem]))
    return frames


def _find_kitti(root: Path) -> list[Frame]:
    images = {path.stem: path for path in _pictures(root / "training" / "image_2")}
    frames = []
    for mask in _pictures(root / "training" / "gt_image_2"):
        # um_road_000000 is the truth of um_000000; um_lane_000000 marks the ego lane only and is another task.
        match = re.fullmatch(r"(um|umm|uu)_road_(\d{6})", mask.stem)
        if match is None:
            continue
        drive, stem = match[1], f"{match[1]}_{match[2]}"
        if stem not in images:
            raise DataError(f"{mask} has no picture {stem}.png in {root / 'training' / 'image_2'}; add it")
        frames.append(Frame(stem, "KITTI Road", "train", drive, "kitti", images[stem], mask))
    return frames


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)


def _camvid_target(label: npt.NDArray[Any], path: Path) -> UInt8Array:
    if label.ndim != 2 or label.dtype != np.uint8 or label.max(initial=0) >= CAMVID_NUM_LABELS:
        raise DataError(f"{path} is no CamVid label map (8-bit, one channel, values 0 to 11); convert it to that form")
    target_HW: UInt8Array = CAMVID_TARGET[label]
    return target_HW


def _kitti_target(colour: npt.NDArray[Any], path: Path) -> UInt8Array:
    # Red marks where the truth counts, blue the road. Source: the KITTI Road devkit's readme.
    if colour.ndim != 3 or colour.shape[2] != 3 or colour.dtype != np.uint8:
        raise DataError(f"{path} is no KITTI Road mask (8-bit RGB); copy it from the dataset as distributed")
    road_HW = np.where(colour[..., 2] > 0, ROAD, NOT_ROAD)
    return np.where(colour[..., 0] > 0, road_HW, VOID).astype(np.uint8)
