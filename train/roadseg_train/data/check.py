"""The check of all data before any work, which reports every bad file at once."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from roadseg_train.data.dataset import Frame, UInt8Array, check_size, read_image, read_target, scan
from roadseg_train.data.problems import InvalidDataError, Problem, ProblemKind
from roadseg_train.data.split import select
from roadseg_train.errors import DataError

T = TypeVar("T")


def check_data(roots: Iterable[Path], splits: Sequence[str]) -> list[Path]:
    """Check that images and masks pair up, and that every file of the given splits can be decoded.

    Returns the images that are left out because they only have a lane mask.

    Raises:
        InvalidDataError: lists every bad file.
        DataError: a split is unknown or empty.
    """
    scans = [scan(root) for root in roots]
    problems = [problem for found in scans for problem in found.problems]
    frames = [frame for found in scans for frame in found.frames]
    try:
        used = list(dict.fromkeys(frame for split in splits for frame in select(frames, split)))
    except DataError:
        if problems:  # they are why the split is empty
            raise InvalidDataError(problems) from None
        raise
    problems += _check_each(check_frame, used)
    if problems:
        raise InvalidDataError(problems)
    return sorted(image for found in scans for image in found.lane_only)


def check_images(paths: Sequence[Path]) -> None:
    """Decode images without masks; InvalidDataError lists every one that cannot be."""
    problems = _check_each(lambda path: _read(lambda: read_image(path))[1], paths)
    if problems:
        raise InvalidDataError(problems)


def check_frame(frame: Frame) -> list[Problem]:
    """Everything that is wrong with the contents of a frame's files."""
    image_HWC, problems = _read(lambda: read_image(frame.image))
    target_HW, mask_problems = _read(lambda: read_target(frame))
    problems += mask_problems
    if image_HWC is not None and target_HW is not None:
        problems += _read(lambda: check_size(frame, image_HWC, target_HW))[1]
        if _is_lane_mask(frame, target_HW):
            problems.append(Problem(frame.mask, ProblemKind.LANE_MASK))
    return problems


def _read(read: Callable[[], T]) -> tuple[T | None, list[Problem]]:
    """The result of `read`, or what is wrong."""
    try:
        return read(), []
    except InvalidDataError as error:
        return None, list(error.problems)


def _check_each(check: Callable[[T], list[Problem]], items: Sequence[T]) -> list[Problem]:
    """The problems of all items. Pillow decodes without holding the GIL, so threads are enough."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = tqdm(pool.map(check, items), total=len(items), desc="check", unit="frame", dynamic_ncols=True)
        return [problem for found in checks for problem in found]


def _is_lane_mask(frame: Frame, target_HW: UInt8Array) -> bool:
    """Whether a KITTI road mask equals the lane mask beside it."""
    lane = replace(frame, mask=frame.mask.with_name(frame.mask.name.replace("_road_", "_lane_")))
    if frame.form != "kitti" or not lane.mask.is_file():
        return False
    lane_HW, _ = _read(lambda: read_target(lane))  # lane masks are not used, so a damaged one does not matter
    return lane_HW is not None and np.array_equal(target_HW, lane_HW)
